//! One file per flow. Flows compose the modules below; they never use each other.

pub mod backup;
pub mod catch_up;
pub mod check_store;
pub mod fetch;
pub mod pin;
pub mod prune;
pub mod push;
pub mod restore;
pub mod status;
pub mod wal_list;
