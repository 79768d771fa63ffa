//! The end-to-end benchmark: builds echo servers, puts them under load in turn, reports what a
//! packet cost.
//!
//! See the README beside this package for what the scenarios mean and how the figures are made.

mod account;
mod address;
mod choice;
mod cli;
mod compile;
mod cores;
mod haproxy;
mod interrupt;
mod load;
mod machine;
mod measure;
mod memory;
mod proc;
mod process;
mod report;
mod rounds;
mod scenario;
mod servers;
mod stats;

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::choice::Choice;
use crate::cli::Cli;
use crate::cores::Cores;
use crate::machine::Machine;
use crate::report::{Missing, Report, Settings};
use crate::rounds::{Built, Plan};
use crate::scenario::Scenario;
use crate::servers::{BACKEND, Server};

/// Descriptors that are not connections, in the server or here.
const OTHER_DESCRIPTORS: usize = 300;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every requested server and scenario has figures.
fn run(cli: &Cli) -> Result<bool> {
    let choice = Choice::of(cli)?;
    interrupt::watch()?;
    let out = match &cli.out {
        Some(out) => out.clone(),
        None => compile::target_dir()?.join("bench-results"),
    };
    let logs = out.join("logs");
    fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    let mut warnings = Vec::new();
    let cores = Cores::find()?;
    if cores.shared() {
        warnings.push(
            "Only one core may be used: server and generator share it, and the figures say little."
                .to_owned(),
        );
    }
    let files = raise_files();
    let idle_counts = affordable(files, cli.idle_counts(), &mut warnings);
    let (scenarios, beyond): (Vec<_>, Vec<_>) = choice
        .scenarios
        .iter()
        .partition(|scenario| scenario.connections() + OTHER_DESCRIPTORS <= files);
    let (servers, mut missing) = build(&choice)?;
    for (scenario, built) in beyond.iter().flat_map(|&scenario: &&'static Scenario| {
        servers.iter().map(move |built| (scenario, built))
    }) {
        if built.server.takes_part(scenario) {
            missing.push(Missing {
                server: built.server.name,
                scenario: Some(scenario.name),
                why: format!("a process may open {files} files here"),
            });
        }
    }
    warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    let machine = Machine::describe(&choice.servers);
    cores::pin(cores.generator)?;
    let plan = Plan {
        scenarios: &scenarios,
        servers: &servers,
        rounds: cli.rounds(),
        round: cli.round(),
        idle_counts: &idle_counts,
        cores,
        logs: &logs,
    };
    let results = plan.run();
    let settings = Settings {
        reference: choice.reference.map(|server| server.name),
        rounds: plan.rounds,
        round_ms: plan.round.as_millis() as u64,
        server_core: cores.server,
        generator_core: cores.generator,
        complete: !interrupt::requested(),
    };
    let report = Report::new(machine, settings, missing, warnings, &results);
    println!("{}", report::markdown(&report));
    for path in report::write(&report, &out)? {
        println!("wrote {}", path.display());
    }
    Ok(report.settings.complete && report.missing.is_empty() && report.failures.is_empty())
}

/// Builds every server, and says which cannot be.
fn build(choice: &Choice) -> Result<(Vec<Built>, Vec<Missing>)> {
    let bar = ProgressBar::new(choice.servers.len() as u64)
        .with_style(ProgressStyle::with_template("{bar:30} {pos}/{len}  {wide_msg}")?);
    let (mut built, mut missing) = (Vec::new(), Vec::new());
    for &server in &choice.servers {
        bar.set_message(format!("building {}", server.name));
        match build_one(server) {
            Ok(one) => built.push(one),
            Err(error) => {
                let why = format!("{error:#}");
                let loss =
                    if choice.is_reference(server) { " (there will be no ratios)" } else { "" };
                bar.suspend(|| eprintln!("warning: {} is left out{loss}: {why}", server.name));
                missing.push(Missing { server: server.name, scenario: None, why });
            }
        }
        interrupt::check()?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    if built.is_empty() {
        bail!("no server could be built");
    }
    Ok((built, missing))
}

/// A server, and the backend that it needs.
fn build_one(server: &'static Server) -> Result<Built> {
    let program = compile::build(server)?;
    let backend = server.is_gateway().then(|| compile::build(BACKEND)).transpose();
    Ok(Built { server, program, backend: backend.context("its backend is missing")? })
}

/// Raises the limit on open files as far as that goes. Returns it.
fn raise_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised =
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if raised.is_ok() { limit.maximum } else { limit.current }
        .map_or(usize::MAX, |files| files as usize)
}

/// Leaves out the numbers of connections for which so many files are not enough.
fn affordable(files: usize, counts: &[usize], warnings: &mut Vec<String>) -> Vec<usize> {
    let (within, beyond): (Vec<usize>, Vec<usize>) =
        counts.iter().partition(|count| **count + OTHER_DESCRIPTORS <= files);
    if !beyond.is_empty() {
        warnings.push(format!(
            "A process may open {files} files here: left out are idle connections at {beyond:?}."
        ));
    }
    within
}
