//! Builds the kernel programs and embeds the object `packet`.

fn main() -> anyhow::Result<()> {
    lb_ebpf_build::embed("packet")
}
