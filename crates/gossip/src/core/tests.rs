//! The specification's behaviours, one core at a time, in simulated time.

mod bench;
mod choke;
mod connections;
mod gossip;
mod hostile;
mod incoming;
mod mesh;
mod publish;
mod random;
mod swarm;
