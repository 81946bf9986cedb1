//! WAL that a server writes, faster than rows could be made up.

use walarchive_benches::{MIXED, SEGMENT};
use walarchive_tests::Cluster;

/// Makes the rows that are copied, and an empty table to copy them to.
pub fn prepare(cluster: &Cluster) {
    let mut client = cluster.client();
    client.batch_execute(MIXED).expect("insert rows");
    client.batch_execute("create table loaded (like mixed); checkpoint").expect("make a table");
}

/// Has the server fill so many segments, and complete the last, whose name is given.
pub fn write(cluster: &Cluster, segments: usize) -> String {
    let mut client = cluster.client();
    let start: String = client.query_one("select pg_current_wal_lsn()::text", &[]).expect("ask").get(0);
    let question = format!("select pg_wal_lsn_diff(pg_current_wal_lsn(), '{start}')::bigint");
    let mut written = 0;
    while written < (segments * SEGMENT) as i64 {
        client.batch_execute("insert into loaded select * from mixed").expect("insert rows");
        written = client.query_one(&question, &[]).expect("ask").get(0);
    }
    cluster.switch_wal()
}

/// The rows that were written.
pub fn rows(cluster: &Cluster) -> String {
    cluster.psql("select count(*) from loaded")
}
