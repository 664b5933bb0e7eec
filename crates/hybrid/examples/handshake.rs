//! The key exchange between a client and a server. `cargo run -p smidge-hybrid --example handshake`

#![allow(clippy::print_stdout, reason = "an example that says what it saw")]

use smidge_hybrid::X25519MLKEM768;

fn main() -> Result<(), rustls::Error> {
    let client = X25519MLKEM768.start()?;
    println!("client: a share of {} bytes", client.pub_key().len());
    let server = X25519MLKEM768.start_and_complete(client.pub_key())?;
    println!("server: a share of {} bytes", server.pub_key.len());
    let secret = client.complete(&server.pub_key)?;
    let same = secret.secret_bytes() == server.secret.secret_bytes();
    println!("the same secret of {} bytes on both sides: {same}", secret.secret_bytes().len());
    if same { Ok(()) } else { Err(rustls::Error::General("the secrets differ".into())) }
}
