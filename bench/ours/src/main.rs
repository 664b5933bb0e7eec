//! The yardstick's child processes of our side: `ours ours ROLE [ARGUMENT…]`, started by `smidge-bench`.

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    smidge_bench::child::main(&args)
}
