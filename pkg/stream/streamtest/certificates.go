package streamtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// certificates are of a CA of their own, in PEM.
type certificates struct {
	ca                    string
	serverCert, serverKey string
	clientCert, clientKey string
}

// ServerName is what the broker's certificate is for, beside 127.0.0.1.
const ServerName = "kafka.hone.test"

func newCertificates() (*certificates, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("create certificates: %w", err)
	}
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial),
			Subject:      pkix.Name{CommonName: name},
			NotBefore:    time.Now().Add(-time.Hour),
			NotAfter:     time.Now().Add(24 * time.Hour),
		}
	}
	ca := template(1, "hone test CA")
	ca.IsCA, ca.BasicConstraintsValid = true, true
	ca.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return nil, fmt.Errorf("create certificates: %w", err)
	}
	c := &certificates{ca: encodePEM("CERTIFICATE", der)}

	issue := func(cert *x509.Certificate) (certPEM, keyPEM string, err error) {
		cert.KeyUsage = x509.KeyUsageDigitalSignature
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return "", "", err
		}
		der, err := x509.CreateCertificate(rand.Reader, cert, ca, &key.PublicKey, caKey)
		if err != nil {
			return "", "", err
		}
		pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return "", "", err
		}
		return encodePEM("CERTIFICATE", der), encodePEM("PRIVATE KEY", pkcs8), nil
	}
	server := template(2, ServerName)
	server.DNSNames, server.IPAddresses = []string{ServerName}, []net.IP{net.IPv4(127, 0, 0, 1)}
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	if c.serverCert, c.serverKey, err = issue(server); err != nil {
		return nil, fmt.Errorf("create server's certificate: %w", err)
	}
	client := template(3, "hone test client")
	client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if c.clientCert, c.clientKey, err = issue(client); err != nil {
		return nil, fmt.Errorf("create client's certificate: %w", err)
	}
	return c, nil
}

func encodePEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// server is the in-process broker's TLS.
func (c *certificates) server(clientAuth bool) (*tls.Config, error) {
	cert, err := tls.X509KeyPair([]byte(c.serverCert), []byte(c.serverKey))
	if err != nil {
		return nil, fmt.Errorf("load server's certificate: %w", err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}}
	if clientAuth {
		cfg.ClientCAs = x509.NewCertPool()
		cfg.ClientCAs.AppendCertsFromPEM([]byte(c.ca))
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return cfg, nil
}
