//! `healthz`: asks a node on this machine whether it is well, for the health check of a container that holds this program alone.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::args::Healthz;
use crate::exit::{Exit, Failure};

/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of the answer that are read: its first line is shorter.
const LINE_LEN_MAX: u64 = 256;

pub(crate) fn run(args: &Healthz) -> Result<(), Failure> {
    let address = args.address;
    // Whoever asks elsewhere tells there that a node is here.
    if !address.ip().is_loopback() {
        return Err(Failure::usage(format!("{address} is not on this machine's loopback")));
    }
    let first_line = ask(address)
        .map_err(|error| Failure::new(Exit::Other, format!("no answer from {address}: {error}")))?;
    if is_well(&first_line) {
        return Ok(());
    }
    Err(Failure::new(Exit::Other, format!("{address} says {first_line:?}")))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a request to this machine alone, from a process that is no node"
)]
fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut limited = stream.take(LINE_LEN_MAX);
    let mut chunk = [0; 64];
    while !answer.contains(&b'\n') {
        match limited.read(&mut chunk)? {
            0 => break,
            n => answer.extend_from_slice(&chunk[..n]),
        }
    }
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).trim_end().to_owned())
}

fn is_well(first_line: &str) -> bool {
    let mut words = first_line.split(' ');
    words.next().is_some_and(|version| version.starts_with("HTTP/1.")) && words.next() == Some("200")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// The outcome where a server answers `answer`.
    #[expect(clippy::disallowed_methods, reason = "plays the node")]
    fn outcome(answer: &'static [u8]) -> Result<(), Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            // A client that has read enough may be gone.
            let _ = stream.write_all(answer);
            String::from_utf8(request).unwrap()
        });
        let outcome = run(&Healthz { address });
        let request = server.join().unwrap();
        assert!(request.starts_with("GET /healthz HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("\r\nHost: {address}\r\n")), "{request}");
        outcome
    }

    #[test]
    fn only_an_answer_of_200_is_well() {
        outcome(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        outcome(b"HTTP/1.0 200\r\n\r\n").unwrap();
        for answer in [
            &b"HTTP/1.1 503 Service Unavailable\r\n\r\n"[..],
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"",
            b"SSH-2.0-x\r\n",
            &[0xff; 4096],
        ] {
            let failure = outcome(answer).unwrap_err();
            assert_eq!(failure.exit, Exit::Other, "{failure}");
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "finds a port where nobody listens")]
    fn nobody_there_is_an_answer_and_elsewhere_is_not_asked() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(run(&Healthz { address: free }).unwrap_err().exit, Exit::Other);
        let elsewhere = Healthz { address: "192.0.2.1:3000".parse().unwrap() };
        assert_eq!(run(&elsewhere).unwrap_err().exit, Exit::Usage);
    }
}
