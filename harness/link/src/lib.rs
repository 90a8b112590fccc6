//! A seeded, sans-IO model of an impaired network link.
