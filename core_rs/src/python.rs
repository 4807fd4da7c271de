//! The one crossing into Python: classes for the switch and for the follower, and the verifier. Nothing else in the crate
//! knows of Python; nothing here decides anything.
//!
//! Every call that does real work gives up the interpreter's lock while it does it. What Python gets wrong or the
//! surroundings refuse is a `CoreError` with one sentence for an operator.

#![allow(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::authorizer::{Authorizer, Settings};
use crate::calendar::Date;
use crate::evidence::Evidence;
use crate::import::import;
use crate::journal::{FolderStorage, Identity, Journal, Locked, Options, identity};
use crate::ledger::{Ledger, Policy};
use crate::mac::KeyEncryptionKey;
use crate::reactor::{Bounds, Reactor, wall_clock};
use crate::replica::Replica;
use crate::show::{KINDS, show};
use crate::snapshot::{self, Resumed};
use crate::verification;

/// Between two words on how far a start has come.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

create_exception!(switch._core, CoreError, PyException);

fn failed(error: impl ToString) -> PyErr {
    CoreError::new_err(error.to_string())
}

fn random_nonce() -> [u8; 8] {
    let mut nonce = [0; 8];
    let filled = rustix::rand::getrandom(nonce.as_mut_slice(), rustix::rand::GetRandomFlags::empty());
    assert_eq!(filled, Ok(nonce.len()), "the system gives random numbers");
    nonce
}

fn identity_text(identity: Identity) -> String {
    format!("{:032x}", u128::from_be_bytes(identity))
}

fn hex(hash: [u8; 32]) -> String {
    blake3::Hash::from_bytes(hash).to_hex().to_string()
}

fn json<'py>(py: Python<'py>, value: &impl serde::Serialize) -> PyResult<Bound<'py, PyBytes>> {
    serde_json::to_vec(value).map(|bytes| PyBytes::new(py, &bytes)).map_err(failed)
}

fn shown<'py>(py: Python<'py>, ledger: &Ledger, kind: &str, identifier: &str) -> PyResult<Option<Bound<'py, PyBytes>>> {
    if !KINDS.contains(&kind) {
        return Err(failed(format!("{kind:?} cannot be shown; it must be one of {}", KINDS.join(", "))));
    }
    show(ledger, kind, identifier).map(|value| json(py, &value)).transpose()
}

/// The hot core, owned by the one thread that runs trio.
#[pyclass(unsendable, module = "switch._core")]
struct Core {
    reactor: Option<Reactor>,
    #[pyo3(get)]
    remarks: Vec<String>,
}

impl Core {
    fn reactor(&mut self) -> PyResult<&mut Reactor> {
        self.reactor.as_mut().ok_or_else(|| failed("the core has been closed"))
    }

    fn ready(&self) -> PyResult<&Reactor> {
        self.reactor.as_ref().ok_or_else(|| failed("the core has been closed"))
    }
}

#[pymethods]
impl Core {
    #[new]
    #[pyo3(signature = (*, journal, key_encryption_key, timezone, segment_bytes, amount_max, identity_days, hold_hours, pin_tries_max, mac_failures_max, connections_max, accept_date = None, progress = None))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments, one a setting")]
    fn new(
        py: Python<'_>,
        journal: PathBuf,
        key_encryption_key: &[u8],
        timezone: String,
        segment_bytes: u64,
        amount_max: u32,
        identity_days: u16,
        hold_hours: u16,
        pin_tries_max: u8,
        mac_failures_max: u32,
        connections_max: usize,
        accept_date: Option<&str>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let key = key_encryption_key.try_into().map_err(|_| {
            failed(format!("the key encryption key has {} bytes; it needs {}", key_encryption_key.len(), KeyEncryptionKey::BYTES))
        })?;
        let accept_date = match accept_date {
            Some(text) => {
                Some(Date::parse(text).ok_or_else(|| failed(format!("--accept-date {text:?} is not a date; write YYYY-MM-DD")))?)
            }
            None => None,
        };
        let policy = Policy { amount_max, identity_days, hold_hours, pin_tries_max };
        let settings = Settings { policy, timezone, key: KeyEncryptionKey::new(key), accept_date };
        let bounds = Bounds { connections_max, mac_failures_max };
        let mut told = Instant::now();
        let mut tell = |position: u64| {
            if let Some(progress) = progress.as_ref().filter(|_| told.elapsed() >= PROGRESS_EVERY) {
                told = Instant::now();
                // What it raises has no way out of a replay, and says nothing about it.
                Python::attach(|py| drop(progress.call1(py, (position,))));
            }
        };
        let (reactor, remarks) = py.detach(|| open(&journal, segment_bytes, settings, bounds, &mut tell)).map_err(failed)?;
        Ok(Self { reactor: Some(reactor), remarks })
    }

    #[staticmethod]
    #[pyo3(signature = (journal, *, segment_bytes))]
    fn create(py: Python<'_>, journal: PathBuf, segment_bytes: u64) -> PyResult<()> {
        py.detach(|| Journal::create(&journal, &Options { segment_bytes, ..Options::default() })).map_err(failed)
    }

    fn fileno(&self) -> PyResult<i32> {
        Ok(self.ready()?.descriptor().as_raw_fd())
    }

    fn adopt(&mut self, descriptor: i32) -> PyResult<bool> {
        if descriptor < 0 {
            return Err(failed(format!("{descriptor} is not a descriptor")));
        }
        // SAFETY: the caller hands over a descriptor that it owns and does not use again.
        let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(self.reactor()?.adopt(socket))
    }

    fn wave(&mut self, py: Python<'_>, budget_microseconds: u64) -> PyResult<bool> {
        let reactor = self.reactor()?;
        Ok(py.detach(|| reactor.wave(budget_microseconds)))
    }

    fn tick(&mut self, py: Python<'_>) -> PyResult<()> {
        let reactor = self.reactor()?;
        py.detach(|| reactor.tick());
        Ok(())
    }

    fn drain(&mut self, py: Python<'_>) -> PyResult<bool> {
        let reactor = self.reactor()?;
        Ok(py.detach(|| reactor.drain()))
    }

    fn import_csv<'py>(&mut self, py: Python<'py>, name: &str, content: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let reactor = self.reactor()?;
        let report = py.detach(|| {
            let report = import(reactor.authorizer_mut(), wall_clock(), name, content);
            reactor.after_command();
            report
        });
        json(py, &report.map_err(failed)?)
    }

    fn show<'py>(&self, py: Python<'py>, kind: &str, identifier: &str) -> PyResult<Option<Bound<'py, PyBytes>>> {
        shown(py, self.ready()?.authorizer().ledger(), kind, identifier)
    }

    fn flush(&mut self, py: Python<'_>) -> PyResult<u64> {
        let reactor = self.reactor()?;
        Ok(py.detach(|| {
            let durable = reactor.authorizer_mut().log_mut().flush();
            reactor.after_command();
            durable
        }))
    }

    #[getter]
    fn position(&self) -> PyResult<u64> {
        Ok(self.ready()?.authorizer().log().position())
    }

    #[getter]
    fn durable(&self) -> PyResult<u64> {
        Ok(self.ready()?.authorizer().log().durable())
    }

    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        json(py, &self.ready()?.report())
    }

    fn close(&mut self, py: Python<'_>) {
        if let Some(mut reactor) = self.reactor.take() {
            py.detach(move || {
                reactor.authorizer_mut().log_mut().flush();
                drop(reactor);
            });
        }
    }
}

/// The pump on an open journal, and what was wrong with snapshots that were passed over.
fn open(
    folder: &Path,
    segment_bytes: u64,
    settings: Settings,
    bounds: Bounds,
    tell: &mut dyn FnMut(u64),
) -> Result<(Reactor, Vec<String>), String> {
    let options = Options { segment_bytes, ..Options::default() };
    let resumed = Locked::folder(folder).and_then(|locked| snapshot::resume(locked, &options, tell));
    let Resumed { ledger, journal, passed_over, .. } = resumed.map_err(|error| error.to_string())?;
    let authorizer = Authorizer::new(ledger, journal, settings, random_nonce, wall_clock())?;
    let mut reactor = Reactor::new(authorizer, bounds).map_err(|error| format!("no epoll descriptor could be had: {error}"))?;
    reactor.after_command();
    Ok((reactor, passed_over))
}

/// Rows of some records that follow each other, as COPY takes them.
#[pyclass(frozen, get_all, module = "switch._core")]
struct Chunk {
    first: u64,
    last: u64,
    business_date: String,
    tables: Py<PyDict>,
    rows: u64,
    hash: String,
}

/// What any thread of Python's may use, one at a time, without the interpreter's lock.
struct Shared<T>(Mutex<T>);

impl<T: Send> Shared<T> {
    fn new(content: T) -> Self {
        Self(Mutex::new(content))
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        // A panic ends the process, so the lock is never poisoned.
        self.0.lock().expect("nobody panicked")
    }

    fn with<R: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut T) -> R + Send) -> R {
        py.detach(|| work(&mut self.lock()))
    }
}

/// A second ledger that follows a journal.
#[pyclass(name = "Replica", module = "switch._core")]
struct PythonReplica {
    replica: Shared<Replica>,
}

#[pymethods]
impl PythonReplica {
    #[new]
    #[pyo3(signature = (journal, *, archive = None, until = u64::MAX))]
    fn new(py: Python<'_>, journal: PathBuf, archive: Option<PathBuf>, until: u64) -> PyResult<Self> {
        let replica = py.detach(|| Replica::open(&journal, archive.as_deref(), until)).map_err(failed)?;
        Ok(Self { replica: Shared::new(replica) })
    }

    #[getter]
    fn remarks(&self, py: Python<'_>) -> Vec<String> {
        self.replica.with(py, |replica| replica.passed_over().to_vec())
    }

    #[getter]
    fn hash(&self, py: Python<'_>) -> String {
        hex(self.replica.with(py, |replica| replica.hash()))
    }

    fn snapshot(&self, py: Python<'_>) -> PyResult<u64> {
        self.replica.with(py, |replica| replica.snapshot()).map_err(failed)
    }

    #[pyo3(signature = (*, segments, archive = None))]
    fn retire(&self, py: Python<'_>, segments: bool, archive: Option<PathBuf>) -> PyResult<u64> {
        self.replica.with(py, |replica| replica.retire(segments, archive.as_deref())).map_err(failed)
    }

    #[getter]
    fn business_date(&self, py: Python<'_>) -> String {
        self.replica.with(py, |replica| replica.ledger().business_date().to_string())
    }

    #[getter]
    fn identity(&self, py: Python<'_>) -> String {
        identity_text(self.replica.with(py, |replica| replica.identity()))
    }

    #[getter]
    fn position(&self, py: Python<'_>) -> u64 {
        self.replica.with(py, |replica| replica.ledger().position())
    }

    #[getter]
    fn durable(&self, py: Python<'_>) -> PyResult<u64> {
        self.replica.with(py, |replica| replica.durable()).map_err(failed)
    }

    fn advance(&self, py: Python<'_>, until: u64) -> PyResult<()> {
        self.replica.with(py, |replica| replica.advance(until)).map_err(failed)
    }

    fn collect(&self, py: Python<'_>, records_max: u64) -> PyResult<Option<Chunk>> {
        if records_max == 0 {
            return Err(failed("a chunk has one record at least"));
        }
        let Some(chunk) = self.replica.with(py, |replica| replica.collect(records_max)).map_err(failed)? else { return Ok(None) };
        let tables = PyDict::new(py);
        for (name, bytes) in &chunk.tables {
            tables.set_item(name, PyBytes::new(py, bytes))?;
        }
        Ok(Some(Chunk {
            first: chunk.first,
            last: chunk.last,
            business_date: chunk.business_date.to_string(),
            tables: tables.unbind(),
            rows: chunk.rows,
            hash: hex(chunk.hash),
        }))
    }

    fn accounts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.replica.with(py, |replica| serde_json::to_vec(&replica.accounts())).map_err(failed)?;
        Ok(PyBytes::new(py, &bytes))
    }

    fn digest(&self, py: Python<'_>) -> String {
        hex(self.replica.with(py, |replica| replica.ledger().digest()))
    }

    fn sum(&self, py: Python<'_>) -> i128 {
        self.replica.with(py, |replica| replica.ledger().accounts().sum())
    }

    fn show<'py>(&self, py: Python<'py>, kind: &str, identifier: &str) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let replica = self.replica.lock();
        shown(py, replica.ledger(), kind, identifier)
    }
}

/// A report on a part of a journal, line by line.
#[pyclass(frozen, name = "Evidence", module = "switch._core")]
struct PythonEvidence {
    evidence: Shared<Evidence>,
}

#[pymethods]
impl PythonEvidence {
    #[new]
    #[pyo3(signature = (journal, first, last, *, timezone, archive = None))]
    fn new(py: Python<'_>, journal: PathBuf, first: &str, last: &str, timezone: &str, archive: Option<PathBuf>) -> PyResult<Self> {
        let open = || Evidence::open(&journal, archive.as_deref(), [first, last], timezone, wall_clock());
        let evidence = py.detach(open).map_err(failed)?;
        Ok(Self { evidence: Shared::new(evidence) })
    }

    #[getter]
    fn position(&self, py: Python<'_>) -> u64 {
        self.evidence.with(py, |evidence| evidence.position())
    }

    #[getter]
    fn durable(&self, py: Python<'_>) -> u64 {
        self.evidence.with(py, |evidence| evidence.durable())
    }

    fn read<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let lines = self.evidence.with(py, Evidence::read).map_err(failed)?;
        Ok(lines.map(|lines| PyBytes::new(py, &lines)))
    }
}

#[pyfunction]
fn journal_identity(py: Python<'_>, journal: PathBuf) -> PyResult<String> {
    let identity = py.detach(|| identity(&FolderStorage::new(&journal))).map_err(failed)?;
    Ok(identity_text(identity))
}

#[pyfunction]
#[pyo3(signature = (journal, *, archive = None))]
fn verify(py: Python<'_>, journal: PathBuf, archive: Option<PathBuf>) -> PyResult<Bound<'_, PyBytes>> {
    let verification = py.detach(|| verification::verify(&journal, archive.as_deref()));
    json(py, &verification)
}

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("CoreError", module.py().get_type::<CoreError>())?;
    module.add_class::<Core>()?;
    module.add_class::<PythonReplica>()?;
    module.add_class::<Chunk>()?;
    module.add_class::<PythonEvidence>()?;
    module.add_function(wrap_pyfunction!(journal_identity, module)?)?;
    module.add_function(wrap_pyfunction!(verify, module)?)
}
