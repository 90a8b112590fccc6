//! Looks for secrets in a firmware image: none may be in one, since images are shared and flashes read out.

/// Something in an image that should not be there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} is in the firmware image at byte {offset:#x}\n  remedy: credentials reach the board over its console at \
     run time; take it out of the sources or the environment of the build"
)]
pub struct Secret {
    /// What it is. Never its text.
    pub what: String,
    /// Where in the image.
    pub offset: usize,
}

/// What private keys and certificates begin with. An image has reason for neither: even the public ones are given to
/// the board at run time.
const MARKS: [(&str, &[u8]); 4] = [
    ("a PEM block", b"-----BEGIN "),
    // RFC 5958: version 0, id-ecPublicKey.
    ("a PKCS#8 P-256 key", b"\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01"),
    // RFC 5915: version 1, an octet string of 32 bytes.
    ("a SEC 1 P-256 key", b"\x02\x01\x01\x04\x20"),
    // RFC 8017: version 0 and the first bytes of a 2048-bit modulus.
    ("a PKCS#1 RSA key", b"\x02\x01\x00\x02\x82\x01\x01\x00"),
];

/// Parts of the names of environment variables that hold secrets.
const NAMES: [&str; 6] = ["PASSWORD", "PASSPHRASE", "PASSWD", "SECRET", "SSID", "PSK"];
/// A value shorter than this is found in any image by chance.
const VALUE_MIN: usize = 6;

/// The first secret in `image`: key material, or the value of one of `variables` that is named like a secret.
///
/// # Errors
/// [`Secret`].
pub fn check(image: &[u8], variables: impl IntoIterator<Item = (String, String)>) -> Result<(), Secret> {
    for (what, mark) in MARKS {
        if let Some(offset) = find(image, mark) {
            return Err(Secret { what: what.to_owned(), offset });
        }
    }
    for (name, value) in variables {
        let is_secret = NAMES.iter().any(|part| name.to_ascii_uppercase().contains(part));
        if is_secret
            && value.len() >= VALUE_MIN
            && let Some(offset) = find(image, value.as_bytes())
        {
            return Err(Secret { what: format!("the value of the environment variable {name}"), offset });
        }
    }
    Ok(())
}

fn find(image: &[u8], mark: &[u8]) -> Option<usize> {
    let first = mark[0];
    (0..image.len().saturating_sub(mark.len() - 1))
        .find(|&offset| image[offset] == first && image[offset..].starts_with(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image_with(secret: &[u8]) -> Vec<u8> {
        let mut image: Vec<u8> = (0..5_000u32).map(|index| ((index * 31) >> 3) as u8).collect();
        image.extend_from_slice(secret);
        image.extend_from_slice(&[0xff; 100]);
        image
    }

    fn variables(name: &str, value: &str) -> [(String, String); 1] {
        [(name.to_owned(), value.to_owned())]
    }

    #[test]
    fn an_image_without_secrets_passes() {
        assert_eq!(check(&image_with(b"hello"), variables("WIFI_PASSWORD", "correct horse")), Ok(()));
        assert_eq!(check(b"", []), Ok(()));
    }

    #[test]
    fn keys_are_found_in_the_forms_that_tools_write() {
        let key = rcgen::KeyPair::generate().unwrap();
        for (secret, what) in
            [(key.serialize_der(), "a PKCS#8 P-256 key"), (key.serialize_pem().into_bytes(), "a PEM block")]
        {
            let found = check(&image_with(&secret), []).unwrap_err();
            assert_eq!(found.what, what);
            assert!(found.offset >= 5_000);
        }
    }

    #[test]
    fn a_password_from_the_environment_is_found_and_not_repeated() {
        let found = check(&image_with(b"correct horse"), variables("LAB_WIFI_PASSWORD", "correct horse"));
        let text = found.unwrap_err().to_string();
        assert!(text.contains("LAB_WIFI_PASSWORD") && !text.contains("horse"), "{text}");
    }

    #[test]
    fn other_variables_and_short_values_are_no_secrets() {
        let image = image_with(b"/usr/bin ab");
        assert_eq!(check(&image, variables("PATH", "/usr/bin")), Ok(()));
        assert_eq!(check(&image, variables("PSK", "ab")), Ok(()));
    }
}
