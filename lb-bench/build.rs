//! Builds the kernel programs and embeds the objects `bench` and `bench_packet`.

fn main() -> anyhow::Result<()> {
    lb_ebpf_build::embed("bench")?;
    lb_ebpf_build::embed("bench_packet")
}
