//! The whole client against quinn-proto and a broker, in virtual time.

mod first_light;
mod world;
