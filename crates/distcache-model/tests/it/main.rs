//! The model, searched: with every rule the promise holds, and without any one of them it does not.

mod rules;
mod scenarios;
mod stories;
mod wide;
