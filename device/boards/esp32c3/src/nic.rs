//! The radio as smoltcp's NIC: Ethernet frames, which the driver turns into 802.11 ones.

use core::task::Context;

use device::control::RadioState;
use device::time::Duration;
use embassy_net_driver::Driver;
use esp_radio::wifi::{Interface, WifiRxToken, WifiTxToken};
use silicon::airtime;
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

/// The station's interface.
pub struct Nic {
    interface: Interface,
    state: RadioState,
    /// Time that the frames sent took on the air at the lowest rate.
    airtime_max: Duration,
}

impl Nic {
    /// The one interface there is.
    pub fn new() -> Self {
        Self { interface: Interface::station(), state: RadioState::Idle, airtime_max: Duration::ZERO }
    }

    /// The interface's hardware address.
    pub fn mac(&self) -> [u8; 6] {
        self.interface.mac_address()
    }

    /// Follows the radio: without a network, frames to send are dropped, as on a cable that is not plugged in.
    pub const fn follow(&mut self, state: RadioState) {
        self.state = state;
    }

    /// Upper bound of the time spent transmitting since boot.
    pub const fn airtime_max(&self) -> Duration {
        self.airtime_max
    }

    /// Lets the next frame ring the doorbell; true if one waits already.
    pub fn arm(&mut self, context: &mut Context<'_>) -> bool {
        // The tokens are dropped unused, which leaves the frame where it is.
        Driver::receive(&mut self.interface, context).is_some()
    }
}

/// A received frame.
pub struct RxToken(WifiRxToken);

/// Room for one frame to send.
pub enum TxToken<'a> {
    /// To the access point.
    Air {
        /// The driver's token.
        token: WifiTxToken,
        /// What is counted.
        airtime_max: &'a mut Duration,
    },
    /// To nobody: there is no network.
    Nowhere,
}

impl phy::Device for Nic {
    type RxToken<'a> = RxToken;
    type TxToken<'a> = TxToken<'a>;

    fn receive(&mut self, _timestamp: Instant) -> Option<(RxToken, TxToken<'_>)> {
        let (rx, token) = Interface::receive(&mut self.interface)?;
        Some((RxToken(rx), TxToken::Air { token, airtime_max: &mut self.airtime_max }))
    }

    fn transmit(&mut self, _timestamp: Instant) -> Option<TxToken<'_>> {
        if self.state != RadioState::Joined {
            return Some(TxToken::Nowhere);
        }
        let token = Interface::transmit(&mut self.interface)?;
        Some(TxToken::Air { token, airtime_max: &mut self.airtime_max })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_MAX;
        capabilities
    }
}

impl phy::RxToken for RxToken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        self.0.consume_token(|frame| f(frame))
    }
}

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        match self {
            Self::Air { token, airtime_max } => {
                *airtime_max = *airtime_max + airtime::at_most(len);
                token.consume_token(len, f)
            }
            Self::Nowhere => f(&mut [0; FRAME_MAX][..len]),
        }
    }
}

/// Longest frame: what esp-radio is built for, its own default (`ESP_RADIO_CONFIG_WIFI_MTU`). A UDP payload of 1,450
/// bytes fits.
const FRAME_MAX: usize = 1492;
