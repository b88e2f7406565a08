//! Builds the kernel programs and embeds the object `socket`; `previous` is for tests.

fn main() -> anyhow::Result<()> {
    lb_ebpf_build::embed("socket")?;
    lb_ebpf_build::embed("previous")
}
