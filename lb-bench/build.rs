//! Builds the kernel programs and embeds the object `bench`.

fn main() -> anyhow::Result<()> {
    lb_ebpf_build::embed("bench")
}
