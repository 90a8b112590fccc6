//! What the gateway answers itself: ARP, DHCP, ICMP echo.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, Error, EthernetAddress,
    EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Address, Ipv4Cidr, Ipv4Packet,
    Ipv4Repr, UdpPacket, UdpRepr,
};

use super::{GatewayConfig, HOP_LIMIT, MAC};

const DHCP_SERVER_PORT: u16 = 67;
const DHCP_CLIENT_PORT: u16 = 68;

/// Longer than any run: a renewal in the middle of one would be noise.
const LEASE_S: u32 = 24 * 3600;

/// A frame from the gateway.
pub(super) fn frame(to: EthernetAddress, protocol: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; EthernetFrame::<&[u8]>::buffer_len(payload.len())];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_dst_addr(to);
    frame.set_src_addr(MAC);
    frame.set_ethertype(protocol);
    frame.payload_mut().copy_from_slice(payload);
    bytes
}

/// An IPv4 packet with the payload `fill` writes.
pub(super) fn ipv4(header: &Ipv4Repr, fill: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = vec![0; header.buffer_len() + header.payload_len];
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
    header.emit(&mut packet, &ChecksumCapabilities::default());
    fill(packet.payload_mut());
    bytes
}

/// The answer to an ARP request for one of the gateway's addresses, as a frame.
pub(super) fn arp(payload: &[u8], config: &GatewayConfig) -> Option<Vec<u8>> {
    let request = ArpRepr::parse(&ArpPacket::new_checked(payload).ok()?).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = request
    else {
        return None;
    };
    if !config.answers_for(target_protocol_addr) {
        return None;
    }
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: MAC,
        source_protocol_addr: target_protocol_addr,
        target_hardware_addr: source_hardware_addr,
        target_protocol_addr: source_protocol_addr,
    };
    let mut bytes = vec![0; reply.buffer_len()];
    reply.emit(&mut ArpPacket::new_unchecked(&mut bytes));
    Some(frame(source_hardware_addr, EthernetProtocol::Arp, &bytes))
}

/// Whether a packet belongs to address configuration rather than to the path.
pub(super) fn is_dhcp(ip: &Ipv4Packet<&[u8]>) -> bool {
    ip.next_header() == IpProtocol::Udp
        && UdpPacket::new_checked(ip.payload()).is_ok_and(|udp| udp.dst_port() == DHCP_SERVER_PORT)
}

/// The answer to a DHCP message, as a frame.
pub(super) fn dhcp(packet: &[u8], config: &GatewayConfig) -> Option<Vec<u8>> {
    let ip = Ipv4Packet::new_checked(packet).ok()?;
    let udp = UdpPacket::new_checked(ip.payload()).ok()?;
    let message = DhcpPacket::new_checked(udp.payload()).ok()?;
    let request = DhcpRepr::parse(&message).ok()?;
    let message_type = match request.message_type {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        DhcpMessageType::Request if request.requested_ip.is_none_or(|ip| ip == config.board) => {
            DhcpMessageType::Ack
        }
        DhcpMessageType::Request => DhcpMessageType::Nak,
        _ => return None,
    };
    let reply = DhcpRepr {
        message_type,
        transaction_id: request.transaction_id,
        secs: 0,
        client_hardware_address: request.client_hardware_address,
        client_ip: request.client_ip,
        your_ip: config.board,
        server_ip: config.address,
        router: Some(config.address),
        subnet_mask: Some(Ipv4Cidr::new(config.address, config.prefix_len).netmask()),
        relay_agent_ip: Ipv4Address::UNSPECIFIED,
        broadcast: request.broadcast,
        requested_ip: None,
        client_identifier: request.client_identifier,
        server_identifier: Some(config.address),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: Some(LEASE_S),
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let udp = UdpRepr { src_port: DHCP_SERVER_PORT, dst_port: DHCP_CLIENT_PORT };
    let header = Ipv4Repr {
        src_addr: config.address,
        dst_addr: Ipv4Address::BROADCAST,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + reply.buffer_len(),
        hop_limit: HOP_LIMIT,
    };
    let packet = ipv4(&header, |bytes| {
        udp.emit(
            &mut UdpPacket::new_unchecked(bytes),
            &header.src_addr.into(),
            &header.dst_addr.into(),
            reply.buffer_len(),
            |bytes| reply.emit(&mut DhcpPacket::new_unchecked(bytes)).expect("the buffer was measured"),
            &ChecksumCapabilities::default(),
        );
    });
    Some(frame(request.client_hardware_address, EthernetProtocol::Ipv4, &packet))
}

/// The answer to an echo request, as a packet; `None` if there is nothing to answer.
///
/// # Errors
/// If the message is damaged.
pub(super) fn echo_reply(ip: &Ipv4Packet<&[u8]>, config: &GatewayConfig) -> Result<Option<Vec<u8>>, Error> {
    let request =
        Icmpv4Repr::parse(&Icmpv4Packet::new_checked(ip.payload())?, &ChecksumCapabilities::default())?;
    let Icmpv4Repr::EchoRequest { ident, seq_no, data } = request else { return Ok(None) };
    if !config.answers_for(ip.dst_addr()) {
        return Ok(None);
    }
    let reply = Icmpv4Repr::EchoReply { ident, seq_no, data };
    let header = Ipv4Repr {
        src_addr: ip.dst_addr(),
        dst_addr: ip.src_addr(),
        next_header: IpProtocol::Icmp,
        payload_len: reply.buffer_len(),
        hop_limit: HOP_LIMIT,
    };
    Ok(Some(ipv4(&header, |bytes| {
        reply.emit(&mut Icmpv4Packet::new_unchecked(bytes), &ChecksumCapabilities::default());
    })))
}
