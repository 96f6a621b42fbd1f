"""Lower bounds on robust accuracy: proofs that no image within a threat changes a prediction."""

from isthmus.certificates.certification import CertifyOptions, certify
from isthmus.certificates.methods import METHODS
from isthmus.certificates.network import CannotCertify
from isthmus.certificates.result import CertifiedResult
from isthmus.certificates.verification import CertificateVerification, verify_certificates

__all__ = [
    "METHODS",
    "CannotCertify",
    "CertificateVerification",
    "CertifiedResult",
    "CertifyOptions",
    "certify",
    "verify_certificates",
]
