"""Tests of cl_adapters.reports."""
