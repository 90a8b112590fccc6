//! Damage to IPv4 packets: where the flipped bits go, and whether a checksum gives them away.

use link::{Checksum, Delivery};
use smoltcp::wire::{IpProtocol, Ipv4Packet, UdpPacket};

/// Damages an IPv4 packet as decided.
///
/// UDP with [`Checksum::Repaired`]: the payload is hit and lengths and checksums are made right again, so that
/// the damage reaches QUIC. All else: anything behind the IP header is hit, checksums stay, and the receiving
/// IP stack discards the packet.
pub(super) fn apply(delivery: &Delivery, checksum: Checksum, packet: &mut Vec<u8>) {
    if delivery.damage.is_none() && !delivery.is_cut() {
        return;
    }
    let Ok(ip) = Ipv4Packet::new_checked(&packet[..]) else { return };
    let header = usize::from(ip.header_len());
    let is_udp = ip.next_header() == IpProtocol::Udp && packet.len() >= header + UDP_HEADER;
    if !(is_udp && checksum == Checksum::Repaired) {
        let kept = delivery.apply(&mut packet[header..]).len();
        packet.truncate(header + kept);
        return;
    }
    let kept = delivery.apply(&mut packet[header + UDP_HEADER..]).len();
    packet.truncate(header + UDP_HEADER + kept);
    repair(packet, header);
}

const UDP_HEADER: usize = 8;

/// Makes lengths and checksums of a UDP packet fit its content.
fn repair(packet: &mut [u8], header: usize) {
    let total = packet.len();
    let (source, destination) = {
        let mut ip = Ipv4Packet::new_unchecked(&mut packet[..]);
        ip.set_total_len(total as u16);
        ip.fill_checksum();
        (ip.src_addr(), ip.dst_addr())
    };
    let mut udp = UdpPacket::new_unchecked(&mut packet[header..]);
    udp.set_len((total - header) as u16);
    udp.fill_checksum(&source.into(), &destination.into());
}
