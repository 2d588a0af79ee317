"""Certificates for the tests: a root, an intermediate authority, and leaves for servers and clients."""

import datetime
import ipaddress
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


def _name(common_name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


class Authority:
    """A root and an intermediate authority that it has signed; leaves are signed by the latter."""

    def __init__(self, folder, name):
        self.folder = folder
        self.name = name
        root_key = ec.generate_private_key(ec.SECP256R1())
        self.root = self._sign(f"{name} root", root_key.public_key(), f"{name} root", root_key, authority=1)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.intermediate = self._sign(
            f"{name} intermediate", self.key.public_key(), f"{name} root", root_key, authority=0
        )
        self.root_file = folder / f"{name}-root.pem"
        self.root_file.write_bytes(_pem(self.root))

    def leaf(self, usage):
        """Chain (leaf and intermediate) and private key of a new leaf, in PEM, and its serial number."""
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = self._sign("leaf", key.public_key(), f"{self.name} intermediate", self.key, usage=usage)
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return _pem(leaf) + _pem(self.intermediate), private, leaf.serial_number

    def server(self, name="server"):
        """Writes a new leaf for a server on this machine; returns its files and serial number."""
        return self._write(name, ExtendedKeyUsageOID.SERVER_AUTH)

    def client(self, name="client"):
        return self._write(name, ExtendedKeyUsageOID.CLIENT_AUTH)

    def _write(self, name, usage):
        chain, private, serial = self.leaf(usage)
        chain_file, key_file = self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"
        replace(chain_file, chain)
        replace(key_file, private)
        return chain_file, key_file, serial

    def _sign(self, subject, public_key, issuer, issuer_key, authority=None, usage=None):
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(issuer))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + 30 * DAY)
            .add_extension(
                x509.BasicConstraints(ca=authority is not None, path_length=authority), critical=True
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
            )
        )
        if authority is not None:
            builder = builder.add_extension(
                x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True
            )
        if usage is not None:
            here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(here), critical=False)
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return builder.sign(issuer_key, hashes.SHA256())


def replace(path, content):
    """Replaces a file at once, as tools that renew certificates do."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    os.replace(new, path)
