//! The account rules: request, view and now give a plan or a refusal.
