//! smidge's node and a stock node.
