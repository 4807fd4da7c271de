//! The end of a run: everything works again, every terminal insists until it has its answers, reads the hotlist and closes its
//! batch.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::model::calendar::campus_day;
use crate::terminals::Sent;
use crate::world::{DISK_BYTES, Packet, SECOND, World, note};
use crate::{Failure, ensure};

impl World {
    /// Everything works again, and every terminal gets its answers.
    pub(crate) fn calm_down(&mut self) -> Result<(), Failure> {
        note!(self, "all is well again");
        self.disk.disarm();
        self.disk.resize(DISK_BYTES);
        (self.disk_is_full, self.clock_error) = (false, 0);
        self.network.clear();
        for terminal in &mut self.terminals {
            terminal.come_back();
        }
        for round in 0..60 {
            if self.server.is_none() {
                self.start(None)?;
                if self.over {
                    return Ok(());
                }
                ensure!(self.server.is_some(), "the switch does not start although all is well");
            }
            if round == 0 {
                // Files that were cut off are imported again.
                self.import_terminals()?;
            }
            // Terminals take their date from the switch, whose own may be some days ahead of the calendar.
            let skew = self.model.day - campus_day(self.now);
            self.terminals.iter_mut().for_each(|terminal| terminal.set_skew(skew));
            let waiting = self.scene(|terminals, scene| {
                let waiting = terminals.iter_mut().filter(|terminal| terminal.is_waiting());
                waiting.flat_map(|one| one.insist_on_all(scene)).collect::<Vec<_>>()
            });
            if waiting.is_empty() && self.terminals.iter().all(|terminal| !terminal.is_waiting()) {
                break;
            }
            self.exchange(waiting)?;
        }
        let silent: BTreeSet<usize> = (0..self.terminals.len()).filter(|&index| self.terminals[index].is_waiting()).collect();
        ensure!(silent.is_empty(), "terminals {silent:?} never get their answers although all is well");
        self.wind_up()?;
        self.judge_end()
    }

    /// Every terminal reads the hotlist until it is whole, and closes its batch.
    fn wind_up(&mut self) -> Result<(), Failure> {
        note!(self, "terminals wind up");
        for _ in 0..40 {
            let whole = self.model.hotlist_version();
            let active = self.habits.active.clone();
            let sent = self.scene(|terminals, scene| {
                let open: Vec<usize> = active.into_iter().filter(|index| !terminals[*index].is_wound_up(whole)).collect();
                open.into_iter().flat_map(|index| terminals[index].wind_up(scene, whole)).collect::<Vec<_>>()
            });
            if sent.is_empty() && self.habits.active.iter().all(|index| self.terminals[*index].is_wound_up(whole)) {
                break;
            }
            self.exchange(sent)?;
        }
        let (whole, listed) = (self.model.hotlist_version(), self.model.listed());
        for terminal in self.habits.active.iter().map(|index| &self.terminals[*index]) {
            ensure!(terminal.is_wound_up(whole), "a terminal cannot close its batch although all is well");
            let (version, own) = terminal.hotlist();
            ensure!(version == whole && *own == listed, "a terminal has the hotlist {own:?}, and it should be {listed:?}");
        }
        Ok(())
    }

    /// A round in which nothing is lost: requests, what they need to become durable, and answers.
    fn exchange(&mut self, sent: Vec<Sent>) -> Result<(), Failure> {
        self.keep_date()?;
        for sent in sent.into_iter().map(Rc::new) {
            let generation = self.generations[self.terminals[sent.terminal].connection];
            note!(self, "T{} sends {}: {sent}", sent.terminal, sent.request);
            self.handle(&sent, generation)?;
        }
        for _ in 0..3 {
            self.settle()?;
            self.drive()?;
        }
        for packet in std::mem::take(&mut self.network) {
            if let Packet::Reply { sent, identity, generation, bytes } = packet {
                self.hear(&sent, identity, generation, &bytes)?;
            }
        }
        self.now += SECOND;
        Ok(())
    }
}
