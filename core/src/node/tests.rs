//! Behaviour of one node and of two, without a network.
