//! The device client against quinn-proto in virtual time.
