"""The demo application: small real processes that run in pod namespaces and talk over TCP and DNS.

Standard library only; each module is one process (`python -m lab.app.web ...`).
"""
