//! The `smidge` command: calls the library and returns its exit code.

fn main() -> std::process::ExitCode {
    smidge::cli::main()
}
