package stream

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"

	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

// Mechanisms of SASL, as Kafka names them.
const (
	Plain       = "PLAIN"
	ScramSHA256 = "SCRAM-SHA-256"
	ScramSHA512 = "SCRAM-SHA-512"
)

// SASL says how to log in to the brokers.
type SASL struct {
	// Mechanism is PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512. Empty means no login.
	// PLAIN without TLS sends the password as it is.
	Mechanism string `yaml:"mechanism" env:"MECHANISM"`
	Username  string `yaml:"username" env:"USERNAME"`
	Password  string `yaml:"password" env:"PASSWORD"`
}

// TLS says how to encrypt the connections to the brokers. Their certificates
// are always verified.
type TLS struct {
	Enabled bool `yaml:"enabled" env:"ENABLED"`
	// CAFile holds the authorities that sign the brokers' certificates, in PEM.
	// Empty means the system's.
	CAFile string `yaml:"ca_file" env:"CA_FILE"`
	// CertFile and KeyFile are what to show to brokers that ask for a client's
	// certificate, in PEM. They are read anew for each connection, so they can
	// be replaced at any time.
	CertFile string `yaml:"cert_file" env:"CERT_FILE"`
	KeyFile  string `yaml:"key_file" env:"KEY_FILE"`
	// ServerName is what the brokers' certificates are for. Empty means each
	// broker's own host name.
	ServerName string `yaml:"server_name" env:"SERVER_NAME"`
}

// validateSecurity calls fail for each key that is wrong.
func (c Config) validateSecurity(fail func(key, format string, args ...any)) {
	switch c.SASL.Mechanism {
	case "":
		if c.SASL.Username != "" || c.SASL.Password != "" {
			fail("sasl.mechanism", "is empty, though a username or password is set: use %s, %s or %s", Plain, ScramSHA256, ScramSHA512)
		}
	case Plain, ScramSHA256, ScramSHA512:
		if c.SASL.Username == "" {
			fail("sasl.username", "is empty")
		}
		if c.SASL.Password == "" {
			fail("sasl.password", "is empty")
		}
	default:
		fail("sasl.mechanism", "must be %s, %s, %s or empty, is %q", Plain, ScramSHA256, ScramSHA512, c.SASL.Mechanism)
	}
	if !c.TLS.Enabled && (c.TLS != TLS{}) {
		fail("tls.enabled", "is false, though other keys of tls are set")
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		fail("tls.cert_file", "and tls.key_file go together")
	}
}

// security is nil and nil where c asks for none. It reads c's files.
func (c Config) security() (*tls.Config, sasl.Mechanism, error) {
	tlsConfig, err := c.TLS.load()
	if err != nil {
		return nil, nil, err
	}
	mechanism, err := c.SASL.load()
	if err != nil {
		return nil, nil, err
	}
	return tlsConfig, mechanism, nil
}

func (s SASL) load() (sasl.Mechanism, error) {
	var algorithm scram.Algorithm
	switch s.Mechanism {
	case "":
		return nil, nil //nolint:nilnil // no login
	case Plain:
		return plain.Mechanism{Username: s.Username, Password: s.Password}, nil
	case ScramSHA256:
		algorithm = scram.SHA256
	case ScramSHA512:
		algorithm = scram.SHA512
	}
	m, err := scram.Mechanism(algorithm, s.Username, s.Password)
	if err != nil {
		return nil, fmt.Errorf("sasl: prepare username and password: %w", err)
	}
	return m, nil
}

func (t TLS) load() (*tls.Config, error) {
	if !t.Enabled {
		return nil, nil //nolint:nilnil // no encryption
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("tls.ca_file: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.ca_file: %s holds no certificate in PEM", t.CAFile)
		}
	}
	if t.CertFile != "" {
		load := func() (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("tls.cert_file, tls.key_file: %s", strings.TrimPrefix(err.Error(), "tls: "))
			}
			return &cert, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return cfg, nil
}
