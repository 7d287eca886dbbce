//! Between the public messages and the vocabulary of the other rooms.
//!
//! One file for each part of the API: [`mutations`], [`reads`], [`import`], [`realms`] and [`members`] take
//! requests apart into *calls*, [`accounts`] holds what they share and puts accounts into answers, [`page`] is the
//! page token, [`time`] turns times over. All of them report what is wrong through [`check::Check`], which
//! gathers, so that a caller learns everything at once.

pub mod accounts;
pub mod check;
pub mod import;
pub mod members;
pub mod mutations;
pub mod page;
pub mod reads;
pub mod realms;
pub mod time;
