//! One plain HTTP request, so that what a server says is read by other code than the one under test.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Sends one GET to `http://HOST:PORT/PATH` and returns the status and the body.
pub(crate) fn get(url: &url::Url, token: &str) -> (u16, Vec<u8>) {
    let address = url.socket_addrs(|| None).expect("a host and a port");
    let mut stream = TcpStream::connect(&*address).expect("the server answers");
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a time limit");
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    // HTTP/1.0: one answer, not chunked, and the end of the connection is the end of the body.
    write!(
        stream,
        "GET {target} HTTP/1.0\r\nHost: {}\r\nAccept: application/scim+json\r\nAuthorization: Bearer {token}\r\n\r\n",
        &url[url::Position::BeforeHost..url::Position::AfterPort],
    )
    .expect("the request is sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the whole answer");
    let head_end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("a head");
    let head = std::str::from_utf8(&answer[..head_end]).expect("a head in ASCII");
    let status = head
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok())
        .expect("a status");
    (status, answer.split_off(head_end + 4))
}
