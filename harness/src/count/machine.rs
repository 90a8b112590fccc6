//! The board's end of lockstep (`device/boards/qemu/src/lockstep.rs` has the form): its NIC's socket.

use std::io;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// EtherType of lockstep's frames.
const LOCKSTEP: [u8; 2] = [0x88, 0xb5];
/// Two addresses and the EtherType.
const ETHERNET_HEADER: usize = 14;
/// Longest frame that is believed.
const FRAME_MAX: u32 = 2_048;
/// Real time that one step may take: a handshake's signatures take about 0.2 s on a free processor.
const STEP_LIMIT: Duration = Duration::from_secs(20);

/// Orders to the board.
const STEP: u8 = 0;
const KEY_EXCHANGE: u8 = 1;
const VERIFY: u8 = 2;

/// What a step led to.
pub(super) struct Done {
    /// Frames the board sent.
    pub frames: Vec<Vec<u8>>,
    /// When it wants to be called again, in microseconds of virtual time.
    pub wake_us: Option<u64>,
}

/// The socket at which the board's NIC is plugged in.
pub(super) struct Machine {
    nic: UnixStream,
    /// Frames that came while a command was carried out.
    frames: Vec<Vec<u8>>,
}

impl Machine {
    pub(super) async fn plug_in(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let (nic, _) = timeout(STEP_LIMIT, listener.accept()).await??;
        Ok(Self { nic, frames: Vec::new() })
    }

    /// Moves the board's clock on, with a frame that arrives then or without.
    pub(super) async fn step(&mut self, time_us: u64, frame: Option<&[u8]>) -> io::Result<Done> {
        let mut body = vec![STEP];
        body.extend(time_us.to_le_bytes());
        body.push(frame.is_some().into());
        self.order(&body).await?;
        if let Some(frame) = frame {
            self.send(frame).await?;
        }
        let [wake_us] = self.answer().await?;
        let wake_us = (wake_us != u64::MAX).then_some(wake_us);
        Ok(Done { frames: std::mem::take(&mut self.frames), wake_us })
    }

    /// Instructions of an X25519 key pair and of an agreement.
    pub(super) async fn key_exchange(&mut self) -> io::Result<[u64; 2]> {
        self.order(&[KEY_EXCHANGE]).await?;
        self.answer().await
    }

    /// Instructions of verifying a signature by a P-256 key over `message`.
    pub(super) async fn verify(
        &mut self,
        public: &[u8],
        signature: &[u8],
        message: &[u8],
    ) -> io::Result<u64> {
        let mut body = vec![VERIFY, public.len() as u8];
        body.extend(public);
        body.push(signature.len() as u8);
        body.extend(signature);
        body.extend((message.len() as u16).to_le_bytes());
        body.extend(message);
        self.order(&body).await?;
        let [spent] = self.answer().await?;
        if spent == 0 {
            return Err(io::Error::other("the board does not verify a good signature"));
        }
        Ok(spent)
    }

    async fn order(&mut self, body: &[u8]) -> io::Result<()> {
        let mut frame = vec![0xff; 12];
        frame.extend(LOCKSTEP);
        frame.extend(body);
        self.send(&frame).await
    }

    async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
        bytes.extend(frame);
        self.nic.write_all(&bytes).await
    }

    /// Reads up to the board's answer; other frames are kept.
    async fn answer<const N: usize>(&mut self) -> io::Result<[u64; N]> {
        let answer = async {
            loop {
                let len = self.nic.read_u32().await?;
                if len > FRAME_MAX {
                    return Err(io::Error::other(format!("a frame of {len} bytes")));
                }
                let mut frame = vec![0; len as usize];
                self.nic.read_exact(&mut frame).await?;
                match frame.split_at_checked(ETHERNET_HEADER) {
                    Some((header, body)) if header.ends_with(&LOCKSTEP) => {
                        let mut numbers = [0; N];
                        for (number, bytes) in numbers.iter_mut().zip(body.as_chunks().0) {
                            *number = u64::from_le_bytes(*bytes);
                        }
                        return Ok(numbers);
                    }
                    _ => self.frames.push(frame),
                }
            }
        };
        timeout(STEP_LIMIT, answer).await.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, format!("no answer to a step within {STEP_LIMIT:?}"))
        })?
    }
}
