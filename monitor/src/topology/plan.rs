//! From what is to what shall be: ordered steps.
