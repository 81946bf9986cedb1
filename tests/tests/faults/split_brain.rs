//! Two primaries with one system identifier, which write the same names with different content.

use std::thread;
use std::time::Duration;

use walarchive_tests::sample::segment;
use walarchive_tests::{Cluster, Scratch, StopMode, stores, wait_until};

use crate::lab::Lab;

#[test]
fn of_two_primaries_exactly_one_wins_each_name() {
    let Some(lab) = Lab::new() else { return };
    let mut wins = [0; 2];
    for _ in 0..20 {
        let number = lab.fresh_segment();
        let sides = [lab.write(number, 1), lab.write(number, 2)];
        let pushes: Vec<_> = thread::scope(|scope| {
            let push = |(path, _): &(String, String)| lab.clean.run(&["wal", "push", path]);
            let both: Vec<_> = sides.iter().map(|side| scope.spawn(move || push(side))).collect();
            both.into_iter().map(|push| push.join().unwrap()).collect()
        });
        let codes: Vec<_> = pushes.iter().map(|push| push.code).collect();
        let winner = codes.iter().position(|code| *code == Some(0)).expect("somebody wins");
        assert_eq!(codes[1 - winner], Some(3), "{pushes:#?}");
        wins[winner] += 1;
        let content = segment(1, number, winner as u64 + 1);
        assert!(lab.stored(&sides[0].1) == Some(content), "it is not the winner's");
        // That stays so.
        assert_eq!(lab.clean.run(&["wal", "push", &sides[winner].0]).code, Some(0));
        assert_eq!(lab.clean.run(&["wal", "push", &sides[1 - winner].0]).code, Some(3));
    }
    eprintln!("{wins:?}");
}

/// A copy of a stopped cluster, so that both are the same primary.
fn twins(scratch: &Scratch) -> Option<[Cluster; 2]> {
    let mut one = Cluster::builder(scratch).wal_segment_mib(1).conf("fsync = off").start()?;
    one.stop(StopMode::Fast);
    let copied = scratch.join("copy");
    let done = scratch.command("cp").arg("-a").arg(one.data_dir()).arg(&copied).status().unwrap();
    assert!(done.success());
    let two = Cluster::adopt(scratch).existing(copied)?;
    Some([one, two])
}

#[test]
fn of_two_servers_with_one_identity_each_segment_is_one_server_s() {
    let scratch = Scratch::new();
    let Some(bucket) = stores::seaweed(&scratch) else { return };
    let Some(mut servers) = twins(&scratch) else { return };
    let mut lab = Lab::on(scratch, bucket);
    lab.clean.unset("WALARCHIVE_SYSTEM_ID");
    for (number, server) in servers.iter_mut().enumerate() {
        server.archive_with(&lab.clean);
        // Two segments must be kept, to be compared with.
        server.append_conf("wal_keep_size = '64MB'");
        server.start();
        server.psql(&format!("create table mine as select {number} as n"));
    }
    // Both complete the same segments, at the same time.
    let mut names = Vec::new();
    for round in 0..5 {
        let switched: Vec<_> = thread::scope(|scope| {
            let both = servers.each_ref().map(|server| {
                scope.spawn(move || {
                    server.psql(&format!("insert into mine values ({round})"));
                    server.switch_wal()
                })
            });
            both.into_iter().map(|switch| switch.join().unwrap()).collect()
        });
        names.extend(switched);
    }
    names.sort();
    names.dedup();
    let status = |server: &Cluster, name: &str, kind: &str| {
        server.data_dir().join(format!("pg_wal/archive_status/{name}.{kind}")).exists()
    };
    let first = &names[0];
    wait_until("both have tried", Duration::from_secs(60), || {
        servers.iter().filter(|server| status(server, first, "done")).count() == 1
            && servers
                .iter()
                .any(|server| server.log().contains("other content") || server.log().contains("exit code 3"))
    });
    let winner = servers.iter().position(|server| status(server, first, "done")).unwrap();
    let loser = &servers[1 - winner];
    assert!(status(loser, first, "ready"), "{}", loser.log());
    assert!(loser.log().contains("failed with exit code 3"), "{}", loser.log());
    // The other one is stuck there, so that all that follows is the winner's.
    for name in &names {
        if status(&servers[winner], name, "done") {
            let content = std::fs::read(servers[winner].data_dir().join("pg_wal").join(name)).unwrap();
            assert!(lab.stored(name) == Some(content), "{name} is not the winner's");
        }
    }
}
