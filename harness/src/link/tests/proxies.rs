//! The proxies for boards on a LAN.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use link::Reason;

use super::setup;
use crate::link::{StreamProxy, UdpProxy};

fn localhost() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn client(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(localhost()).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

fn server() -> UdpSocket {
    let socket = UdpSocket::bind(localhost()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

#[test]
fn datagrams_go_both_ways_and_clients_are_kept_apart() {
    let server = server();
    let proxy = UdpProxy {
        setup: setup("both.delay = \"5 ms\"", 1),
        listen: localhost(),
        server: server.local_addr().unwrap(),
    };
    let (link, address) = proxy.start().unwrap();
    let clients = [client(address), client(address)];
    let mut buffer = [0; 100];
    let mut sources = Vec::new();
    for (i, client) in clients.iter().enumerate() {
        let sent = Instant::now();
        client.send(&[i as u8; 10]).unwrap();
        let (len, source) = server.recv_from(&mut buffer).unwrap();
        server.send_to(&buffer[..len], source).unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap(), 10);
        assert_eq!(buffer[0], i as u8);
        assert!(sent.elapsed() >= Duration::from_millis(10));
        sources.push(source);
    }
    assert_ne!(sources[0], sources[1]);
    let summary = link.stop();
    assert!(!summary.ends_tcp);
    let stats = summary.stats;
    assert_eq!((stats.up.delivered.packets, stats.down.delivered.packets), (2, 2));
    assert_eq!(stats.up.offered.bytes, 2 * (10 + 28), "IP and UDP headers count");
}

#[test]
fn the_proxy_rebinds_and_drops_like_the_frame_path() {
    let server = server();
    let text = "up.loss.packets = \"2\"\nup.corrupt = { probability = \"100 %\", checksum = \"stale\" }\ndown.truncate = { probability = \"100 %\" }";
    let proxy = UdpProxy { setup: setup("", 1), listen: localhost(), server: server.local_addr().unwrap() };
    let (link, address) = proxy.clone().start().unwrap();
    let client = client(address);
    let mut buffer = [0; 100];
    let mut source = || {
        client.send(b"x").unwrap();
        server.recv_from(&mut buffer).unwrap().1
    };
    let first = source();
    link.rebind();
    while link.timeline().is_empty() {
        std::thread::yield_now();
    }
    assert_ne!(first, source());
    drop(link);

    let (link, address) = UdpProxy { setup: setup(text, 1), ..proxy }.start().unwrap();
    let client = super::proxies::client(address);
    for _ in 0..3 {
        client.send(b"damaged").unwrap();
    }
    while link.stats().up.checksum_failed + link.stats().up.dropped_packets() < 3 {
        std::thread::yield_now();
    }
    let stats = link.stop().stats;
    assert_eq!((stats.up.checksum_failed, stats.up.dropped[&Reason::ListedLoss]), (2, 1));
    assert_eq!(stats.up.delivered.packets, 0);
}

#[test]
fn nothing_is_left_when_the_handle_is_dropped() {
    let server = server();
    let proxy = UdpProxy {
        setup: setup("both.delay = \"10 s\"", 1),
        listen: localhost(),
        server: server.local_addr().unwrap(),
    };
    let (link, address) = proxy.start().unwrap();
    client(address).send(b"still on its way").unwrap();
    let begin = Instant::now();
    drop(link);
    assert!(begin.elapsed() < Duration::from_secs(1), "dropping must not wait for packets on their way");
    UdpSocket::bind(address).expect("the address is free again");
}

#[test]
fn an_address_in_use_is_named() {
    let taken = server();
    let address = taken.local_addr().unwrap();
    let error = UdpProxy { setup: setup("", 1), listen: address, server: address }.start().unwrap_err();
    assert!(error.to_string().contains(&format!("the UDP proxy on {address}")), "{error}");
}

/// A TCP service that sends everything back, one connection after the other.
fn tcp_echo() -> SocketAddr {
    let listener = TcpListener::bind(localhost()).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    address
}

#[test]
fn a_stream_is_delayed_and_throttled_but_loses_nothing() {
    let text = "both = { delay = \"20 ms\", jitter = \"10 ms\", loss = \"50 %\", rate = \"20 Mbit/s\" }";
    let (link, address) =
        StreamProxy { setup: setup(text, 1), listen: localhost(), server: tcp_echo() }.start().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let data: Vec<u8> = (0..500_000u32).map(|i| (i % 251) as u8).collect();
    let begin = Instant::now();
    let writer = std::thread::spawn({
        let (mut stream, data) = (stream.try_clone().unwrap(), data.clone());
        move || {
            stream.write_all(&data)?;
            stream.shutdown(std::net::Shutdown::Write)
        }
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    writer.join().unwrap().unwrap();
    assert!(received == data, "{} bytes of {}", received.len(), data.len());
    // 4 Mbit at 20 Mbit/s, and a round trip of delay.
    assert!(begin.elapsed() >= Duration::from_millis(200 + 20), "{:?}", begin.elapsed());
    let summary = link.stop();
    assert!(summary.ends_tcp, "no TCP handshake has crossed it");
    let stats = summary.stats;
    assert_eq!((stats.up.dropped_packets(), stats.down.dropped_packets()), (0, 0));
}

#[test]
fn a_fading_link_takes_no_byte_of_a_stream() {
    let text = "both.fade = { every = \"8 ms\", last = \"3 ms\" }";
    let (link, address) =
        StreamProxy { setup: setup(text, 1), listen: localhost(), server: tcp_echo() }.start().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let begin = Instant::now();
    let mut sent = 0u32;
    while begin.elapsed() < Duration::from_millis(400) {
        stream.write_all(&sent.to_be_bytes()).unwrap();
        sent += 1;
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert!(received.iter().eq((0..sent).flat_map(u32::to_be_bytes).collect::<Vec<_>>().iter()));
    let stats = link.stop().stats;
    assert_eq!((stats.up.dropped_packets(), stats.down.dropped_packets()), (0, 0));
}

#[test]
fn a_blackout_stalls_a_stream_and_a_rebinding_breaks_it() {
    let text = "[[blackout]]\nafter = \"go\"\nfor = \"100 ms\"";
    let (link, address) =
        StreamProxy { setup: setup(text, 1), listen: localhost(), server: tcp_echo() }.start().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let mut buffer = [0; 10];
    stream.write_all(b"before").unwrap();
    stream.read_exact(&mut buffer[..6]).unwrap();
    link.event("go");
    while link.timeline().len() < 2 {
        std::thread::yield_now();
    }
    let begin = Instant::now();
    stream.write_all(b"during").unwrap();
    stream.read_exact(&mut buffer[..6]).unwrap();
    assert_eq!(&buffer[..6], b"during");
    assert!(begin.elapsed() > Duration::from_millis(60), "{:?}", begin.elapsed());
    link.rebind();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(stream.read(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    drop(link);
}
