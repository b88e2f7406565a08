//! Builds the kernel programs and embeds the objects `bench` and `bench_packet`; `packet` is for tests.

fn main() -> anyhow::Result<()> {
    lb_ebpf_build::embed("bench")?;
    lb_ebpf_build::embed("bench_packet")?;
    lb_ebpf_build::embed("packet")
}
