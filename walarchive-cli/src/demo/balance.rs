//! The accounting identity of pgbench: what was paid in is the same, however it is summed up.

use postgres::Client;
use serde::Serialize;
use walarchive_core::Result;

use super::client::during;

const SUMS: &str = "SELECT
    (SELECT coalesce(sum(abalance), 0)::bigint FROM pgbench_accounts),
    (SELECT coalesce(sum(bbalance), 0)::bigint FROM pgbench_branches),
    (SELECT coalesce(sum(tbalance), 0)::bigint FROM pgbench_tellers),
    (SELECT coalesce(sum(delta), 0)::bigint FROM pgbench_history),
    (SELECT count(*) FROM pgbench_history)";

/// The four sums that are equal after any number of whole transactions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Balance {
    accounts: i64,
    branches: i64,
    tellers: i64,
    history: i64,
    /// How many transactions there were.
    transactions: i64,
}

/// Sums up.
pub(super) fn read(client: &mut Client) -> Result<Balance> {
    let row = client.query_one(SUMS, &[]).map_err(during("summing up the balances"))?;
    Ok(Balance {
        accounts: row.get(0),
        branches: row.get(1),
        tellers: row.get(2),
        history: row.get(3),
        transactions: row.get(4),
    })
}

impl Balance {
    /// What is wrong, if anything is.
    pub(super) fn differences(&self) -> Vec<String> {
        let sums = [self.branches, self.tellers, self.history];
        if sums.iter().any(|sum| *sum != self.accounts) {
            return vec![format!("the balances do not agree: {self:?}")];
        }
        if self.transactions == 0 {
            return vec!["no transaction of the load was restored".to_owned()];
        }
        Vec::new()
    }

    /// In words.
    pub(super) fn told(&self) -> String {
        format!("{} transactions of the load, balance {} in all four books", self.transactions, self.accounts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sum_that_differs_is_enough() {
        let good = Balance { accounts: -5, branches: -5, tellers: -5, history: -5, transactions: 2 };
        assert!(good.differences().is_empty());
        for bad in [
            Balance { accounts: -4, ..good.clone() },
            Balance { branches: -4, ..good.clone() },
            Balance { tellers: -4, ..good.clone() },
            Balance { history: -4, ..good.clone() },
            Balance { transactions: 0, ..good },
        ] {
            assert_eq!(bad.differences().len(), 1, "{bad:?}");
        }
    }
}
