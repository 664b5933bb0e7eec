//! A simulated world: time and the network as values, repeatable from a seed.
