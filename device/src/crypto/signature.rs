//! Signature verification: the algorithms of certificates and of CertificateVerify.
