//! A board's frames: gateway, impairments, rebinding.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use link::{Action, LogLine, Reason};
use smoltcp::socket::tcp::State;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet,
    Ipv4Repr,
};

use super::guest::{ADDRESS, GATEWAY, Guest};
use super::setup;
use crate::link::capture::tests::{blocks, frame_of};
use crate::link::{
    Capture, FramePath, GatewayConfig, Happening, LinkHandle, Nic, Protocol, Setup, TcpAfterRebinding,
};

const SERVICE: SocketAddrV4 = SocketAddrV4::new(GATEWAY, 14567);

fn start(setup: Setup, gateway: GatewayConfig) -> (LinkHandle, Guest) {
    let (ours, boards) = UnixStream::pair().unwrap();
    let link = FramePath { setup, nic: Nic::Stream(ours), gateway }.start().unwrap();
    (link, Guest::new(boards))
}

/// A UDP service that sends everything back and tells where it came from.
fn udp_echo() -> (SocketAddr, mpsc::Receiver<SocketAddr>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let (sources, seen) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((len, source)) = socket.recv_from(&mut buffer) {
            if sources.send(source).is_err() {
                return;
            }
            let _ = socket.send_to(&buffer[..len], source);
        }
    });
    (address, seen)
}

fn udp_gateway(host: SocketAddr) -> GatewayConfig {
    GatewayConfig::default().with_service(Protocol::Udp, SERVICE.port(), host)
}

fn tcp_gateway(host: SocketAddr) -> GatewayConfig {
    let tcp_rto_min = Duration::from_millis(10);
    GatewayConfig { tcp_rto_min, ..GatewayConfig::default() }.with_service(
        Protocol::Tcp,
        SERVICE.port(),
        host,
    )
}

/// Bytes that differ everywhere, so that a swap or a gap shows.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn arp_is_answered_and_udp_comes_back() {
    let (host, sources) = udp_echo();
    let (link, mut guest) = start(setup("", 1), udp_gateway(host));
    let socket = guest.udp(5000);
    guest.send_udp(socket, SERVICE, b"hello");
    assert_eq!(guest.await_udp(socket), b"hello");
    assert!(sources.recv().unwrap().ip().is_loopback());
    let stats = link.stop().stats;
    assert_eq!((stats.up.delivered.packets, stats.down.delivered.packets), (1, 1));
    assert_eq!(stats.up.offered.bytes, 28 + 5);
    assert!(stats.exempt_frames >= 1, "ARP bypasses the link");
}

#[test]
fn nothing_but_arp_passes_at_full_loss() {
    let (host, _sources) = udp_echo();
    let (link, mut guest) = start(setup("up.loss = \"100 %\"", 1), udp_gateway(host));
    let socket = guest.udp(5000);
    guest.send_udp(socket, SERVICE, b"hello");
    guest.run_until("ARP and the datagram", |_| (link.stats().up.offered.packets == 1).then_some(()));
    guest.run_for(Duration::from_millis(20));
    assert_eq!(guest.received_udp(socket), None);
    assert_eq!(link.stop().stats.up.dropped[&Reason::RandomLoss], 1);
}

#[test]
fn an_echo_request_is_answered_through_the_link() {
    let (link, mut guest) = start(setup("both.delay = \"10 ms\"", 1), GatewayConfig::default());
    let echo = Icmpv4Repr::EchoRequest { ident: 3, seq_no: 4, data: b"ping" };
    let checksums = smoltcp::phy::ChecksumCapabilities::default();
    let ip = Ipv4Repr {
        src_addr: ADDRESS,
        dst_addr: GATEWAY,
        next_header: IpProtocol::Icmp,
        payload_len: echo.buffer_len(),
        hop_limit: 64,
    };
    let mut frame = vec![0; 14 + ip.buffer_len() + echo.buffer_len()];
    let mut ethernet = EthernetFrame::new_unchecked(&mut frame);
    ethernet.set_src_addr(EthernetAddress([2, 0, 0, 0, 0, 2]));
    ethernet.set_dst_addr(EthernetAddress::BROADCAST);
    ethernet.set_ethertype(EthernetProtocol::Ipv4);
    let mut packet = Ipv4Packet::new_unchecked(ethernet.payload_mut());
    ip.emit(&mut packet, &checksums);
    echo.emit(&mut Icmpv4Packet::new_unchecked(packet.payload_mut()), &checksums);

    let sent = Instant::now();
    guest.send_frame(&frame);
    let reply = guest.run_until("the echo", |guest| guest.take_frames().into_iter().next());
    assert!(sent.elapsed() >= Duration::from_millis(20));
    let ip = Ipv4Packet::new_checked(&reply[14..]).unwrap();
    assert_eq!((ip.src_addr(), ip.dst_addr()), (GATEWAY, ADDRESS));
    let reply = Icmpv4Repr::parse(&Icmpv4Packet::new_checked(ip.payload()).unwrap(), &checksums).unwrap();
    assert_eq!(reply, Icmpv4Repr::EchoReply { ident: 3, seq_no: 4, data: b"ping" });
    drop(link);
}

#[test]
fn delay_is_kept_to() {
    let (host, _sources) = udp_echo();
    let (link, mut guest) =
        start(setup("up.delay = \"30 ms\"\ndown.delay = \"10 ms\"", 1), udp_gateway(host));
    let socket = guest.udp(5000);
    let mut shortest = Duration::MAX;
    for _ in 0..5 {
        let sent = Instant::now();
        guest.send_udp(socket, SERVICE, b"x");
        guest.await_udp(socket);
        assert!(sent.elapsed() >= Duration::from_millis(40));
        shortest = shortest.min(sent.elapsed());
    }
    // How exactly is for the benchmark to say: a busy machine may not run this test in time.
    assert!(shortest < Duration::from_millis(300), "{shortest:?} on a path of 40 ms");
    drop(link);
}

#[test]
fn after_a_rebinding_udp_continues_from_a_new_port_and_after_an_address_change_from_a_new_address() {
    let (host, sources) = udp_echo();
    let (link, mut guest) = start(setup("", 1), udp_gateway(host));
    let socket = guest.udp(5000);
    let mut ask = |link: &LinkHandle, actions: usize| -> SocketAddr {
        guest.run_until("the action", |_| (link.timeline().len() == actions).then_some(()));
        guest.send_udp(socket, SERVICE, b"x");
        guest.await_udp(socket);
        sources.recv().unwrap()
    };
    let first = ask(&link, 0);
    link.rebind();
    let rebound = ask(&link, 1);
    link.change_address();
    let moved = ask(&link, 2);
    assert_eq!(first.ip(), rebound.ip());
    assert_ne!(first.port(), rebound.port());
    assert_ne!(first.ip(), moved.ip());
    let timeline = link.stop().timeline;
    let actions: Vec<_> = timeline.iter().map(|occurrence| occurrence.what.clone()).collect();
    let done = |action| Happening::Action { action, note: None };
    assert_eq!(actions, [done(Action::Rebind), done(Action::AddressChange)]);
}

#[test]
fn a_blackout_counts_from_its_event_and_is_on_the_time_line() {
    let (host, _sources) = udp_echo();
    let text = "[[blackout]]\nafter = \"connected\"\nat = \"30 ms\"\nfor = \"100 ms\"";
    let (link, mut guest) = start(setup(text, 1), udp_gateway(host));
    let socket = guest.udp(5000);
    let mut answered_at = Vec::new();
    link.event("connected");
    let begin = link.started();
    // On a busy machine everything may come late, but nothing may come early.
    let ended = |link: &LinkHandle| Some(Duration::from_micros(link.timeline().get(2)?.time_us));
    while ended(&link).is_none_or(|end| answered_at.last().is_none_or(|at| *at <= end)) {
        assert!(begin.elapsed() < Duration::from_secs(10), "no end of the blackout: {:?}", link.timeline());
        guest.send_udp(socket, SERVICE, b"x");
        guest.run_for(Duration::from_millis(5));
        while guest.received_udp(socket).is_some() {
            answered_at.push(begin.elapsed());
        }
    }
    let summary = link.stop();
    let [event, start, end] = &summary.timeline[..] else { panic!("{:?}", summary.timeline) };
    assert_eq!(event.what, Happening::Event { name: "connected".to_owned() });
    assert!(start.time_us >= event.time_us + 30_000, "{start:?} after {event:?}");
    assert!(end.time_us >= event.time_us + 130_000, "{end:?} after {event:?}");
    let dark = Duration::from_micros(start.time_us)..Duration::from_micros(end.time_us);
    assert!(answered_at.iter().any(|at| *at < dark.start) && answered_at.iter().any(|at| *at > dark.end));
    // The last one sent before the blackout may be answered within it, by a guest that was slow to look.
    assert!(answered_at.iter().filter(|at| dark.contains(*at)).count() <= 1, "{answered_at:?} {dark:?}");
    assert!(summary.stats.up.dropped[&Reason::Blackout] > 0);
}

#[test]
fn damage_reaches_udp_if_the_checksum_is_repaired_and_not_if_it_is_stale() {
    for (checksum, expect_damage) in [("repaired", true), ("stale", false)] {
        let (host, _sources) = udp_echo();
        let text = format!("up.corrupt = {{ probability = \"50 %\", bits = 1, checksum = {checksum:?} }}");
        let (link, mut guest) = start(setup(&text, 3), udp_gateway(host));
        let socket = guest.udp(5000);
        let payload = pattern(400);
        for _ in 0..40 {
            guest.send_udp(socket, SERVICE, &payload);
        }
        let settled = |link: &LinkHandle| {
            let stats = link.stats();
            stats.down.delivered.packets + stats.up.checksum_failed == 40
        };
        guest.run_until("all fates", |_| settled(&link).then_some(()));
        guest.run_for(Duration::from_millis(10));
        let received: Vec<_> = std::iter::from_fn(|| guest.received_udp(socket)).collect();
        let stats = link.stop().stats;
        let damaged = received.iter().filter(|datagram| **datagram != payload).count() as u64;
        assert!((10..31).contains(&stats.up.corrupted), "{} of 40 damaged", stats.up.corrupted);
        if expect_damage {
            assert_eq!((received.len(), damaged), (40, stats.up.corrupted));
        } else {
            assert_eq!((received.len() as u64, damaged), (40 - stats.up.corrupted, 0));
            assert_eq!(stats.up.checksum_failed, stats.up.corrupted);
        }
    }
}

#[test]
fn a_cut_datagram_arrives_short_and_a_cut_segment_not_at_all() {
    let (host, _sources) = udp_echo();
    let (link, mut guest) = start(setup("up.truncate = { probability = \"100 %\" }", 3), udp_gateway(host));
    let socket = guest.udp(5000);
    let payload = pattern(400);
    for _ in 0..10 {
        guest.send_udp(socket, SERVICE, &payload);
        let echoed = guest.await_udp(socket);
        assert!(echoed.len() < payload.len() && payload.starts_with(&echoed));
    }
    let syn = guest.connect_tcp(40_000, SERVICE);
    guest.run_until("the cut SYN", |_| (link.stats().up.checksum_failed > 0).then_some(()));
    assert_eq!(guest.tcp(syn).state(), State::SynSent);
    let up = link.stop().stats.up;
    assert_eq!(up.truncated, up.offered.packets);
}

/// Sends `data` through a TCP echo service and returns what comes back until its end.
fn tcp_echo_through(guest: &mut Guest, data: &[u8]) -> Vec<u8> {
    let socket = guest.connect_tcp(40_000, SERVICE);
    let (mut sent, mut received) = (0, Vec::new());
    guest.run_until("the echo of all data", |guest| {
        let socket = guest.tcp(socket);
        if socket.can_send() && sent < data.len() {
            sent += socket.send_slice(&data[sent..]).unwrap();
            if sent == data.len() {
                socket.close();
            }
        }
        while socket.can_recv() {
            socket
                .recv(|bytes| {
                    received.extend_from_slice(bytes);
                    (bytes.len(), ())
                })
                .unwrap();
        }
        // The echo service closes after the board has: its FIN is the end.
        (sent == data.len() && !socket.may_recv()).then_some(())
    });
    received
}

/// A TCP service that sends everything back, for one connection.
fn tcp_echo() -> (SocketAddr, std::thread::JoinHandle<std::io::Result<u64>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        let (stream, _) = listener.accept()?;
        std::io::copy(&mut &stream, &mut &stream)
    });
    (address, served)
}

#[test]
fn a_megabyte_of_tcp_survives_loss_both_ways() {
    let (host, served) = tcp_echo();
    let text = "both = { loss = \"5 %\", delay = \"1 ms\", corrupt = \"1 %\", duplicate = \"1 %\" }";
    let (link, mut guest) = start(setup(text, 5), tcp_gateway(host));
    let data = pattern(1 << 20);
    let echoed = tcp_echo_through(&mut guest, &data);
    assert!(echoed == data, "{} bytes came back, not the {} sent", echoed.len(), data.len());
    assert_eq!(served.join().unwrap().unwrap(), 1 << 20);
    let stats = link.stop().stats;
    for direction in [&stats.up, &stats.down] {
        assert!(direction.dropped[&Reason::RandomLoss] > 10, "{direction:?}");
    }
    assert!(stats.up.checksum_failed > 1, "damaged segments are found by their checksum");
}

#[test]
fn a_refused_port_is_refused_to_the_board() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (link, mut guest) = start(setup("", 1), tcp_gateway(unused));
    let socket = guest.connect_tcp(40_000, SERVICE);
    guest.run_until("the reset", |guest| (guest.tcp(socket).state() == State::Closed).then_some(()));
    let unmapped = guest.connect_tcp(40_001, SocketAddrV4::new(GATEWAY, 1));
    guest.run_until("the reset", |guest| (guest.tcp(unmapped).state() == State::Closed).then_some(()));
    drop(link);
}

#[test]
fn resets_are_passed_on_in_both_directions() {
    for board_resets in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (link, mut guest) = start(setup("", 1), tcp_gateway(listener.local_addr().unwrap()));
        let socket = guest.connect_tcp(40_000, SERVICE);
        guest.run_until("the connection", |guest| guest.tcp(socket).may_send().then_some(()));
        let (mut broker, _) = listener.accept().unwrap();
        if board_resets {
            guest.tcp(socket).abort();
            guest.run_for(Duration::from_millis(20));
            broker.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let error = broker.read(&mut [0; 1]).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        } else {
            socket2::SockRef::from(&broker).set_linger(Some(Duration::ZERO)).unwrap();
            drop(broker);
            guest.run_until("the reset", |guest| (guest.tcp(socket).state() == State::Closed).then_some(()));
        }
        drop(link);
    }
}

#[test]
fn a_broker_that_does_not_read_stops_the_board_and_loses_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (link, mut guest) = start(setup("", 1), tcp_gateway(listener.local_addr().unwrap()));
    let socket = guest.connect_tcp(40_000, SERVICE);
    guest.run_until("the connection", |guest| guest.tcp(socket).may_send().then_some(()));
    let (mut broker, _) = listener.accept().unwrap();
    // Far more than all buffers on the way hold.
    let data = pattern(16 << 20);
    let mut sent = 0;
    let mut stalled_since = Instant::now();
    guest.run_until("the window to close", |guest| {
        let now = guest.tcp(socket).send_slice(&data[sent..]).unwrap();
        if now > 0 {
            sent += now;
            stalled_since = Instant::now();
        }
        (stalled_since.elapsed() > Duration::from_millis(150)).then_some(())
    });
    assert!(sent < data.len(), "all of {sent} bytes vanished into buffers");
    guest.tcp(socket).close();
    let reader = std::thread::spawn(move || {
        let mut received = Vec::new();
        broker.read_to_end(&mut received).map(|_| received)
    });
    guest.run_until("the broker to read all", |_| reader.is_finished().then_some(()));
    assert!(reader.join().unwrap().unwrap() == data[..sent]);
    drop(link);
}

#[test]
fn a_rebinding_breaks_tcp_as_a_nat_does() {
    for (after, reset) in [(TcpAfterRebinding::Reset, true), (TcpAfterRebinding::Silence, false)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut gateway = tcp_gateway(listener.local_addr().unwrap());
        gateway.tcp_after_rebinding = after;
        let (link, mut guest) = start(setup("", 1), gateway);
        let socket = guest.connect_tcp(40_000, SERVICE);
        guest.run_until("the connection", |guest| guest.tcp(socket).may_send().then_some(()));
        let (mut broker, _) = listener.accept().unwrap();
        // Something has to pass first: a handshake's last segment that comes late is reset itself.
        guest.tcp(socket).send_slice(b"x").unwrap();
        guest.run_until("the first byte", |guest| (guest.tcp(socket).send_queue() == 0).then_some(()));
        broker.read_exact(&mut [0; 1]).unwrap();
        link.rebind();
        guest.run_until("the rebinding", |_| (link.timeline().len() == 1).then_some(()));
        // A delayed acknowledgement may have met the reset already.
        let sent = guest.tcp(socket).send_slice(b"into the void");
        assert!(sent.is_ok() || reset, "{sent:?}");
        guest.run_for(Duration::from_millis(50));
        assert_eq!(guest.tcp(socket).state() == State::Closed, reset);
        // The broker has heard neither data nor an end.
        broker.set_nonblocking(true).unwrap();
        assert_eq!(broker.read(&mut [0; 16]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        broker.write_all(b"nobody there").unwrap();
        // A new connection works.
        let again = guest.connect_tcp(40_001, SERVICE);
        guest.run_until("the new connection", |guest| guest.tcp(again).may_send().then_some(()));
        drop(link);
    }
}

#[test]
fn dhcp_gives_the_board_its_address() {
    let (ours, boards) = UnixStream::pair().unwrap();
    let setup = setup("both.loss = \"100 %\"", 1);
    let link =
        FramePath { setup, nic: Nic::Stream(ours), gateway: GatewayConfig::default() }.start().unwrap();
    let mut guest = Guest::new(boards);
    guest.send_frame(DISCOVER);
    let offer = guest.run_until("the offer", |guest| guest.take_frames().into_iter().next());
    let ip = Ipv4Packet::new_checked(&offer[14..]).unwrap();
    let udp = smoltcp::wire::UdpPacket::new_checked(ip.payload()).unwrap();
    let dhcp = smoltcp::wire::DhcpPacket::new_checked(udp.payload()).unwrap();
    let offer = smoltcp::wire::DhcpRepr::parse(&dhcp).unwrap();
    assert_eq!(offer.message_type, smoltcp::wire::DhcpMessageType::Offer);
    assert_eq!((offer.your_ip, offer.router, offer.transaction_id), (ADDRESS, Some(GATEWAY), 0x0102_0304));
    drop(link);
}

#[test]
fn the_log_replays_and_the_capture_holds_what_the_board_saw() {
    let directory = tempfile::tempdir().unwrap();
    let (host, _sources) = udp_echo();
    let mut setup =
        setup("both = { loss = \"20 %\", delay = \"2 ms\", jitter = \"1 ms\", duplicate = \"10 %\" }", 9);
    setup.log = Some(directory.path().join("link.jsonl"));
    let pcap = directory.path().join("wire.pcapng");
    setup.capture = Some(Capture { file: pcap.clone(), key_log: None });
    let (link, mut guest) = start(setup.clone(), udp_gateway(host));
    let socket = guest.udp(5000);
    for i in 0..60u8 {
        guest.send_udp(socket, SERVICE, &[i; 100]);
        if i == 30 {
            link.event("half");
        }
    }
    guest.run_until("all packets", |_| (link.stats().up.offered.packets == 60).then_some(()));
    guest.run_for(Duration::from_millis(30));
    let stats = link.stop().stats;

    let log = std::fs::read_to_string(setup.log.unwrap()).unwrap();
    let lines: Vec<LogLine> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| matches!(line, LogLine::Event { name, .. } if name == "half")));
    let (packets, hash) = link::replay(lines).unwrap();
    assert_eq!(packets, stats.up.offered.packets + stats.down.offered.packets);
    assert_eq!(hash, stats.fate_hash);

    let blocks = blocks(&std::fs::read(pcap).unwrap());
    let mut ip_bound_for = [0u64; 2];
    let mut exempt = BTreeSet::new();
    for (_, body) in &blocks[2..] {
        let frame = frame_of(body);
        if frame[12..14] == [0x08, 0x00] {
            ip_bound_for[usize::from(frame[14 + 16..14 + 20] == ADDRESS.octets())] += 1;
        } else {
            exempt.insert(frame.to_vec());
        }
    }
    assert_eq!(ip_bound_for, [stats.up.offered.packets, stats.down.delivered.packets]);
    assert!(exempt.len() >= 2, "ARP request and reply");
}

#[test]
fn the_same_seed_and_packets_give_the_same_log() {
    // What is decided, without the times: two runs in real time differ in these.
    let decisions = |seed| {
        let directory = tempfile::tempdir().unwrap();
        let (host, _sources) = udp_echo();
        let text = "up = { loss = \"20 %\", delay = \"1 ms\", duplicate = \"10 %\", corrupt = \"10 %\" }";
        let mut setup = setup(text, seed);
        let log = directory.path().join("link.jsonl");
        setup.log = Some(log.clone());
        let (link, mut guest) = start(setup, udp_gateway(host));
        let socket = guest.udp(5000);
        for i in 0..200u8 {
            guest.send_udp(socket, SERVICE, &vec![i; 50 + usize::from(i)]);
            // The guest's own buffer is small.
            guest.run_until("the packet", |_| (link.stats().up.offered.packets > u64::from(i)).then_some(()));
        }
        let _ = link.stop();
        let lines = std::fs::read_to_string(log).unwrap();
        let records = lines.lines().filter_map(|line| match serde_json::from_str(line).unwrap() {
            LogLine::Packet(record) if record.direction == link::Direction::Up => Some(record),
            _ => None,
        });
        let timeless = |record: link::Record| link::Record {
            time_us: 0,
            deliver_us: record.deliver_us.map(|_| 0),
            copy_us: record.copy_us.map(|_| 0),
            ..record
        };
        records.map(timeless).collect::<Vec<_>>()
    };
    let first = decisions(7);
    assert_eq!(first.len(), 200);
    assert!(first.iter().any(|record| record.dropped.is_some()));
    assert_eq!(first, decisions(7));
    assert_ne!(first, decisions(8));
}

#[test]
fn an_existing_log_is_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("link.jsonl");
    std::fs::write(&log, "precious").unwrap();
    let (ours, _boards) = UnixStream::pair().unwrap();
    let setup = Setup { log: Some(log.clone()), ..Setup::default() };
    let error =
        FramePath { setup, nic: Nic::Stream(ours), gateway: GatewayConfig::default() }.start().unwrap_err();
    assert!(error.to_string().contains("link.jsonl"), "{error}");
    assert_eq!(std::fs::read_to_string(log).unwrap(), "precious");
}

#[test]
fn a_board_may_unplug_and_come_back_and_the_socket_file_goes_in_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nic");
    let (host, _sources) = udp_echo();
    let link = FramePath { setup: setup("", 1), nic: Nic::Path(path.clone()), gateway: udp_gateway(host) };
    let link = link.start().unwrap();
    for _ in 0..3 {
        let mut guest = Guest::new(UnixStream::connect(&path).unwrap());
        let socket = guest.udp(5000);
        guest.send_udp(socket, SERVICE, b"hello");
        assert_eq!(guest.await_udp(socket), b"hello");
    }
    assert!(link.is_running());
    drop(link);
    assert!(!path.exists());
}

/// A DHCPDISCOVER with transaction id 0x01020304, as smoltcp writes it.
static DISCOVER: &[u8] = &{
    let mut frame = [0u8; 14 + 20 + 8 + 244];
    let head = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 2, 0x08, 0x00, // Ethernet
        0x45, 0, 0x01, 0x10, 0, 0, 0, 0, 64, 17, 0x79, 0xde, 0, 0, 0, 0, 255, 255, 255, 255, // IPv4
        0, 68, 0, 67, 0, 0xfc, 0, 0, // UDP without checksum
        1, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0x80, 0, // op, htype, hlen, hops, xid, secs, flags
    ];
    let mut i = 0;
    while i < head.len() {
        frame[i] = head[i];
        i += 1;
    }
    let dhcp = 42;
    frame[dhcp + 28] = 2;
    frame[dhcp + 33] = 2;
    let options = [0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255];
    let mut i = 0;
    while i < options.len() {
        frame[dhcp + 236 + i] = options[i];
        i += 1;
    }
    frame
};
