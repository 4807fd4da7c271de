//! Whether terminals may work: a terminal that was stolen or is under repair is suspended, and taken into use again.

use super::{Change, Fields, File, Once, Plan, Row, Wrong};
use crate::ledger::Ledger;
use crate::ledger::registry::{TerminalId, TerminalStanding};

/// What a file of terminals' standings is to do.
pub(super) fn plan(file: &mut File<'_>, ledger: &Ledger) -> Result<Plan, String> {
    let mut once = Once::default();
    let mut plan = Plan::default();
    while let Some((line, fields)) = file.next()? {
        let row = standing(fields, |id| once.see(line, id), ledger);
        let (id, standing, change) = row.map_err(|wrong| file.wrong(line, wrong))?;
        plan.take(Row::Standing { id, standing }, change);
    }
    Ok(plan)
}

fn standing(
    fields: Fields<'_>,
    once: impl FnOnce(&str) -> Result<(), Wrong>,
    ledger: &Ledger,
) -> Result<(TerminalId, TerminalStanding, Change), Wrong> {
    let id = fields.terminal_id(0)?;
    once(fields.text(0))?;
    let terminals = &ledger.registry().terminals;
    let known =
        terminals.find(&id).ok_or_else(|| (0, format!("terminal {} is not known; import the terminals first", fields.text(0))))?;
    let standing = fields.one_of(1, TerminalStanding::ALL, TerminalStanding::name)?;
    let change = if terminals[known].standing == standing { Change::None } else { Change::Changed };
    Ok((id, standing, change))
}
