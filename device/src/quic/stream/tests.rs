//! Streams as a whole: whose turn, who may, who must stop.

use super::*;
use crate::quic::StreamId;

type Table = Streams<3, 64, 6>;

const LIMITS: Limits = Limits {
    stream_window: 64,
    connection_window: 100,
    peer_streams: 1,
    send_buffer: 64,
    reserved_blocks: 0,
};
const PEER: PeerLimits =
    PeerLimits { data: 1000, stream_data_local: 500, stream_data_remote: 500, streams: 10 };
const FIRST: StreamId = StreamId(0);
const PEERS: StreamId = StreamId(1);

fn table() -> Table {
    let mut table = Table::new();
    table.restart(LIMITS);
    table.set_peer_limits(PEER);
    table
}

fn table_with_stream() -> Table {
    let mut table = table();
    assert_eq!(table.open(), Ok(FIRST));
    table
}

/// All control frames that are due.
fn controls(table: &mut Table) -> heapless::Vec<Control, 8> {
    core::iter::from_fn(|| table.next_control()).collect()
}

#[test]
fn a_stream_opens_only_with_the_peers_credit() {
    let mut table = Table::new();
    table.restart(LIMITS);
    assert_eq!(table.open(), Err(UseError::NoCredit));
    assert_eq!(controls(&mut table)[..], [Control::StreamsBlocked { limit: 0 }]);
    table.on_max_streams(1);
    assert_eq!(table.poll_event(), Some(StreamEvent::Credit));
    assert_eq!(table.open(), Ok(FIRST));
    assert_eq!(table.open(), Err(UseError::NoCredit));
}

#[test]
fn slots_for_the_peers_streams_stay_free() {
    let mut table = table();
    assert_eq!(table.open(), Ok(StreamId(0)));
    assert_eq!(table.open(), Ok(StreamId(4)));
    assert_eq!(table.open(), Err(UseError::SlotsTaken));
    table.on_stream(PEERS, 0, b"hi", false).unwrap();
    assert_eq!(table.poll_event(), Some(StreamEvent::Opened(PEERS)));
    assert_eq!(table.poll_event(), Some(StreamEvent::Readable(PEERS)));
}

#[test]
fn streams_beyond_the_limit_or_never_opened_are_refused() {
    let mut table = table_with_stream();
    assert_eq!(table.on_stream(StreamId(5), 0, b"x", false), Err(Error::StreamLimit));
    assert_eq!(table.on_stream(StreamId(3), 0, b"x", false), Err(Error::StreamLimit));
    assert_eq!(table.on_stream(StreamId(4), 0, b"x", false), Err(Error::StreamState));
    assert_eq!(table.on_max_stream_data(StreamId(2), 9), Err(Error::StreamState));
}

#[test]
fn sending_stops_at_the_connections_and_the_streams_limit() {
    let mut table = Table::new();
    table.restart(LIMITS);
    table.set_peer_limits(PeerLimits { data: 30, stream_data_remote: 20, ..PEER });
    let (a, b) = (table.open().unwrap(), table.open().unwrap());
    table.write(a, &[1; 40]).unwrap();
    table.write(b, &[2; 40]).unwrap();
    assert_eq!(table.next_piece(100), Some(StreamPiece { id: a, offset: 0, len: 20, fin: false }));
    assert_eq!(table.next_piece(100), Some(StreamPiece { id: b, offset: 0, len: 10, fin: false }));
    assert_eq!(table.next_piece(100), None);
    assert_eq!(
        controls(&mut table)[..],
        [Control::DataBlocked { limit: 30 }, Control::StreamDataBlocked { id: a, limit: 20 }]
    );
    assert_eq!(table.next_piece(100), None);
    assert!(controls(&mut table).is_empty(), "once per limit");
    table.on_max_data(35);
    assert_eq!(table.next_piece(100), Some(StreamPiece { id: b, offset: 10, len: 5, fin: false }));
    table.on_max_data(1000);
    table.on_max_stream_data(a, 25).unwrap();
    assert_eq!(table.next_piece(100), Some(StreamPiece { id: a, offset: 20, len: 5, fin: false }));
}

#[test]
fn retransmissions_need_no_credit() {
    let mut table = Table::new();
    table.restart(LIMITS);
    table.set_peer_limits(PeerLimits { data: 20, ..PEER });
    let id = table.open().unwrap();
    table.write(id, &[1; 40]).unwrap();
    let piece = table.next_piece(100).unwrap();
    table.on_piece_lost(piece.record());
    assert_eq!(table.next_piece(100), Some(piece));
}

#[test]
fn streams_take_turns() {
    let mut table = table();
    let (a, b) = (table.open().unwrap(), table.open().unwrap());
    table.write(a, &[1; 60]).unwrap();
    table.write(b, &[2; 60]).unwrap();
    let order: [StreamId; 4] = core::array::from_fn(|_| table.next_piece(20).unwrap().id);
    assert_eq!(order, [a, b, a, b]);
}

#[test]
fn a_frame_fits_the_room_it_was_asked_for() {
    let mut table = table_with_stream();
    table.write(FIRST, &[7; 64]).unwrap();
    for room in 0..70 {
        let Some(piece) = table.next_piece(room) else {
            assert!(room <= 5, "{room}");
            continue;
        };
        let mut bytes = [0; 100];
        let mut writer = crate::codec::Writer::new(&mut bytes);
        crate::quic::frame::Stream::encode_header(piece.id, piece.offset, piece.len, piece.fin, &mut writer)
            .unwrap();
        assert!(writer.len() + piece.len <= room, "{room}");
        table.on_piece_lost(piece.record());
    }
}

#[test]
fn reading_raises_each_limit_after_half_its_window() {
    let mut table = table_with_stream();
    table.on_stream(FIRST, 0, &[1; 40], false).unwrap();
    let mut bytes = [0; 31];
    assert_eq!(table.read(FIRST, &mut bytes), Ok(Read::Bytes(31)));
    assert!(!table.wants_control());
    assert_eq!(table.read(FIRST, &mut bytes), Ok(Read::Bytes(9)));
    let frames = controls(&mut table);
    assert_eq!(frames[..], [Control::MaxStreamData { id: FIRST, limit: 104 }]);
    assert!(!table.wants_control());
    table.on_control_lost(frames[0].record());
    assert_eq!(controls(&mut table), frames);
    table.on_stream(FIRST, 40, &[1; 20], false).unwrap();
    assert_eq!(table.read(FIRST, &mut bytes), Ok(Read::Bytes(20)));
    assert_eq!(controls(&mut table)[..], [Control::MaxData { limit: 160 }]);
}

#[test]
fn the_connections_limit_holds_over_all_streams() {
    let mut table = table();
    let (a, b) = (table.open().unwrap(), table.open().unwrap());
    table.on_stream(a, 0, &[0; 64], false).unwrap();
    table.on_stream(b, 0, &[0; 36], false).unwrap();
    assert_eq!(table.on_stream(b, 36, &[0; 1], false), Err(Error::FlowControl));
}

#[test]
fn a_stream_ends_when_both_directions_have_and_its_slot_serves_the_next() {
    let mut table = table_with_stream();
    table.write(FIRST, b"bye").unwrap();
    table.finish(FIRST).unwrap();
    assert_eq!(table.write(FIRST, b"more"), Err(UseError::Finished));
    let piece = table.next_piece(100).unwrap();
    table.on_piece_acked(piece.record());
    assert_eq!(table.poll_event(), Some(StreamEvent::Delivered(FIRST)));
    table.on_stream(FIRST, 0, b"ok", true).unwrap();
    assert_eq!(table.poll_event(), Some(StreamEvent::Readable(FIRST)));
    let mut bytes = [0; 8];
    assert_eq!(table.read(FIRST, &mut bytes), Ok(Read::Bytes(2)));
    assert_eq!(table.read(FIRST, &mut bytes), Ok(Read::Finished));
    assert_eq!(table.ids().count(), 0);
    assert_eq!(table.read(FIRST, &mut bytes), Err(UseError::Unknown));
    // Late frames of the closed stream are no error.
    table.on_stream(FIRST, 0, b"ok", true).unwrap();
    table.on_max_stream_data(FIRST, 9000).unwrap();
    assert_eq!(table.open(), Ok(StreamId(4)));
}

#[test]
fn a_closed_stream_of_the_peer_earns_it_another() {
    let mut table = table();
    table.on_stream(PEERS, 0, b"", true).unwrap();
    while table.poll_event().is_some() {}
    assert_eq!(table.read(PEERS, &mut [0; 4]), Ok(Read::Finished));
    table.finish(PEERS).unwrap();
    let piece = table.next_piece(100).unwrap();
    table.on_piece_acked(piece.record());
    assert_eq!(table.poll_event(), Some(StreamEvent::Delivered(PEERS)));
    assert_eq!(controls(&mut table)[..], [Control::MaxStreams { limit: 2 }]);
    table.on_stream(StreamId(5), 0, b"x", false).unwrap();
}

#[test]
fn stop_sending_resets_and_tells_why() {
    let mut table = table_with_stream();
    table.write(FIRST, &[0; 40]).unwrap();
    let piece = table.next_piece(20).unwrap();
    table.on_stop_sending(FIRST, 7).unwrap();
    assert_eq!(table.poll_event(), Some(StreamEvent::Stopped { id: FIRST, code: 7 }));
    assert_eq!(table.write(FIRST, b"x"), Err(UseError::Stopped));
    let reset = Control::ResetStream { id: FIRST, code: 7, final_size: piece.len as u64 };
    assert_eq!(controls(&mut table)[..], [reset]);
    assert_eq!(table.next_piece(100), None);
    table.on_control_lost(reset.record());
    assert_eq!(controls(&mut table)[..], [reset]);
    table.on_control_acked(reset.record());
    table.on_stream(FIRST, 0, b"", true).unwrap();
    assert_eq!(table.read(FIRST, &mut [0; 4]), Ok(Read::Finished));
    assert_eq!(table.poll_event(), None);
    assert_eq!(table.ids().count(), 0);
}

#[test]
fn a_reset_by_the_peer_drops_what_was_not_read_and_returns_its_credit() {
    let mut table = table_with_stream();
    table.on_stream(FIRST, 0, &[0; 30], false).unwrap();
    assert_eq!(table.on_reset_stream(FIRST, 9, 29), Err(Error::FinalSize));
    table.on_reset_stream(FIRST, 9, 60).unwrap();
    assert_eq!(table.poll_event(), None.or(Some(StreamEvent::Readable(FIRST))));
    assert_eq!(table.poll_event(), Some(StreamEvent::Reset { id: FIRST, code: 9 }));
    assert_eq!(table.read(FIRST, &mut [0; 4]), Err(UseError::Finished));
    assert_eq!(controls(&mut table)[..], [Control::MaxData { limit: 160 }]);
    table.on_reset_stream(FIRST, 9, 60).unwrap();
    assert_eq!(table.on_reset_stream(FIRST, 9, 61), Err(Error::FinalSize));
}

#[test]
fn a_reset_behind_the_last_byte_tells_its_code_and_leaves_what_has_come() {
    for read_before in [true, false] {
        let mut table = table_with_stream();
        table.on_stream(FIRST, 0, &[7; 30], false).unwrap();
        if read_before {
            assert_eq!(table.read(FIRST, &mut [0; 40]), Ok(Read::Bytes(30)));
        }
        table.on_reset_stream(FIRST, 9, 30).unwrap();
        let events = core::array::from_fn(|_| table.poll_event());
        assert_eq!(
            events,
            [Some(StreamEvent::Readable(FIRST)), Some(StreamEvent::Reset { id: FIRST, code: 9 }), None]
        );
        if !read_before {
            assert_eq!(table.read(FIRST, &mut [0; 40]), Ok(Read::Bytes(30)));
        }
        assert_eq!(table.read(FIRST, &mut [0; 40]), Ok(Read::Finished));
        table.on_reset_stream(FIRST, 8, 30).unwrap();
        assert_eq!(table.poll_event(), None, "once");
    }
    let mut table = table_with_stream();
    table.on_stream(FIRST, 0, &[7; 30], true).unwrap();
    table.on_reset_stream(FIRST, 9, 30).unwrap();
    assert_eq!(table.poll_event(), Some(StreamEvent::Readable(FIRST)));
    assert_eq!(table.poll_event(), None, "the end had come in order");
}

#[test]
fn an_unwanted_stream_is_stopped_and_its_bytes_cost_no_credit() {
    let mut table = table_with_stream();
    table.on_stream(FIRST, 0, &[0; 20], false).unwrap();
    table.stop(FIRST, 3).unwrap();
    assert_eq!(table.poll_event(), None);
    let stop = Control::StopSending { id: FIRST, code: 3 };
    assert_eq!(controls(&mut table)[..], [stop]);
    table.on_stream(FIRST, 20, &[0; 44], false).unwrap();
    assert_eq!(controls(&mut table)[..], [Control::MaxData { limit: 164 }]);
    table.on_control_lost(stop.record());
    assert_eq!(controls(&mut table)[..], [stop]);
    table.on_reset_stream(FIRST, 3, 64).unwrap();
    table.on_control_lost(stop.record());
    assert!(!table.wants_control(), "the peer has stopped");
}

#[test]
fn refused_early_data_waits_for_the_new_limits() {
    let mut table = table_with_stream();
    table.write(FIRST, b"connect").unwrap();
    let early = table.next_piece(100).unwrap();
    table.on_early_data_refused();
    assert_eq!(table.next_piece(100), None);
    table.set_peer_limits(PEER);
    assert_eq!(table.next_piece(100), Some(early));
    let mut bytes = [0; 7];
    table.copy(&early, &mut bytes);
    assert_eq!(&bytes, b"connect");
}

#[test]
fn a_blocked_writer_is_told_when_there_is_room() {
    let mut table = table_with_stream();
    assert_eq!(table.write(FIRST, &[0; 70]), Ok(64));
    let piece = table.next_piece(100).unwrap();
    assert_eq!(table.poll_event(), None);
    table.on_piece_acked(piece.record());
    assert_eq!(table.poll_event(), Some(StreamEvent::Writable(FIRST)));
    assert_eq!(table.writable(FIRST), Ok(64));
}

#[test]
fn a_reader_that_waits_for_the_rest_of_a_message_gets_credit_for_it() {
    let mut table = table_with_stream();
    table.on_stream(FIRST, 0, &[1; 20], false).unwrap();
    assert_eq!(table.read(FIRST, &mut [0; 20]), Ok(Read::Bytes(20)));
    assert!(!table.wants_control(), "20 bytes of 64 are not worth a frame");
    // The start of a message of 60 bytes, as far as the limit permits. Nothing is read before the rest comes.
    table.on_stream(FIRST, 20, &[1; 44], false).unwrap();
    assert_eq!(controls(&mut table)[..], [Control::MaxStreamData { id: FIRST, limit: 84 }]);
    table.on_stream(FIRST, 64, &[1; 20], false).unwrap();
    assert_eq!(table.read(FIRST, &mut [0; 64]), Ok(Read::Bytes(64)));
}
