//! Builds the kernel programs and embeds the object `socket`.

fn main() -> anyhow::Result<()> {
    lb_ebpf_build::embed("socket")
}
