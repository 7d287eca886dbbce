//! RocksDB behind the Engine port.
