//! What a kind of broker can be made to suffer: known before a run, so that no run breaks off in the middle for want
//! of it.

use super::emqx;
use super::fault::Fault;
use super::spec::BrokerSpec;

impl BrokerSpec {
    /// Why a broker of this kind cannot act out `fault`; `None` if it can.
    #[must_use]
    pub fn why_not(&self, fault: &Fault) -> Option<&'static str> {
        match self {
            // What `auto` comes to is either of them; it is asked again once that is known.
            Self::Embedded | Self::Auto => None,
            Self::Compose | Self::External(_) => Some("the harness did not start it"),
            Self::Emqx { .. } => in_container(fault, Product::Emqx),
            Self::Docker { image } if emqx::is_image(image) => in_container(fault, Product::Emqx),
            Self::Docker { .. } => in_container(fault, Product::Unknown),
        }
    }

    /// Why a broker of this kind cannot be given certificates and an authority to know clients by; `None` if it can.
    #[must_use]
    pub fn why_no_credentials(&self) -> Option<&'static str> {
        match self {
            Self::Compose | Self::External(_) => {
                Some("the harness did not start it, so it has the certificates it was started with")
            }
            Self::Embedded | Self::Auto | Self::Emqx { .. } | Self::Docker { .. } => None,
        }
    }

    /// Why a broker of this kind cannot be told when to grant streams; `None` if it can.
    #[must_use]
    pub fn why_no_stream_credit(&self) -> Option<&'static str> {
        match self {
            Self::Embedded | Self::Auto => None,
            Self::Compose | Self::External(_) => Some("the harness did not start it"),
            Self::Emqx { .. } | Self::Docker { .. } => Some("its version decides on that, and no setting"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Product {
    Emqx,
    Unknown,
}

fn in_container(fault: &Fault, product: Product) -> Option<&'static str> {
    match fault {
        Fault::Stop | Fault::Kill | Fault::Start(_) | Fault::Freeze | Fault::Resume => None,
        Fault::Kick { .. } if product == Product::Unknown => {
            Some("only EMQX's API to kick a client is known, and the image is another")
        }
        Fault::RotateCertificate(_) if product == Product::Unknown => {
            Some("only EMQX's commands to reload a certificate are known, and the image is another")
        }
        Fault::Kick { .. } | Fault::RotateCertificate(_) => None,
        Fault::Limit(_) => Some("EMQX holds its QUIC clients to no number, and no other image is known to"),
        Fault::DropUdp | Fault::PassUdp => {
            Some("Docker connects or disconnects all ports of a container together, TCP with UDP")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Limits, SessionState};
    use crate::certificates::Flaw;

    #[test]
    fn faults_are_refused_by_kind_with_a_reason() {
        let kick = Fault::Kick { client_id: "c".into() };
        let rotate = Fault::RotateCertificate(Flaw::None);
        let spec = |text: &str| -> BrokerSpec { text.parse().expect("a broker") };
        for (broker, able, unable) in [
            ("embedded", vec![&kick, &rotate, &Fault::DropUdp, &Fault::Freeze], vec![]),
            ("emqx", vec![&kick, &rotate, &Fault::Freeze, &Fault::Stop], vec![&Fault::DropUdp]),
            ("docker:emqx/emqx:5.8.9", vec![&kick, &rotate], vec![&Fault::DropUdp]),
            (
                "docker:other/broker:1",
                vec![&Fault::Kill, &Fault::Resume],
                vec![&kick, &rotate, &Fault::PassUdp],
            ),
            ("compose", vec![], vec![&kick, &Fault::Stop]),
            ("quic://broker:14567", vec![], vec![&Fault::Freeze]),
        ] {
            for fault in able {
                assert_eq!(spec(broker).why_not(fault), None, "{broker}: {fault}");
            }
            for fault in unable {
                assert!(spec(broker).why_not(fault).is_some(), "{broker}: {fault}");
            }
        }
        for (broker, able) in
            [("embedded", true), ("emqx", false), ("docker:a/b:1", false), ("compose", false)]
        {
            assert_eq!(spec(broker).why_no_stream_credit().is_none(), able, "{broker}");
        }
        assert!(spec("emqx").why_not(&Fault::Limit(Limits::default())).is_some());
        assert_eq!(spec("docker:other/broker:1").why_not(&Fault::Start(SessionState::Kept)), None);
    }
}
