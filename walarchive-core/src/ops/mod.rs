//! One file per flow. Flows compose the modules below; they never use each other.

pub mod backup;
pub mod catch_up;
pub mod check_store;
pub mod copy;
pub mod drill;
pub mod dump;
pub mod dump_restore;
pub mod fetch;
pub mod pin;
pub mod prune;
pub mod push;
pub mod replace;
pub mod restore;
pub mod rotate;
pub mod status;
pub mod verify;
pub mod wal_list;
