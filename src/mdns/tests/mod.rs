//! Discovery in simulated time, and its behaviour in a simulated world.

mod links;
mod net;
mod world;
