package gateway

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
)

// A SCRAM verifier is what a server keeps of a password: enough to recognize
// who knows it, not enough to log in with. Its text is the one that Postgres
// keeps in pg_authid.rolpassword, so that it can be copied from there or
// back:
//
//	SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>

const (
	verifierPrefix = "SCRAM-SHA-256$"
	// defaultIterations is Postgres's own number (scram_iterations).
	defaultIterations = 4096
	// maxIterations bounds what a verifier makes its user's client compute.
	maxIterations = 10_000_000
	saltLength    = 16
)

// Verifier is a SCRAM-SHA-256 verifier.
type Verifier struct{ stored scram.StoredCredentials }

// IsZero tells that there is none.
func (v Verifier) IsZero() bool { return v.stored.Iters == 0 }

// NewVerifier makes a verifier of a password, with a salt of its own. Passwords
// that SASLprep refuses are taken byte for byte, as Postgres does.
func NewVerifier(password string) (Verifier, error) {
	var salt [saltLength]byte
	_, _ = rand.Read(salt[:]) // never fails: it crashes the program instead
	client, err := scram.SHA256.NewClient("", password, "")
	if err != nil {
		if client, err = scram.SHA256.NewClientUnprepped("", password, ""); err != nil {
			return Verifier{}, err
		}
	}
	stored, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(salt[:]), Iters: defaultIterations})
	return Verifier{stored}, err
}

// String is the verifier as Postgres writes it.
func (v Verifier) String() string {
	encode := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s%d:%s$%s:%s", verifierPrefix, v.stored.Iters, encode([]byte(v.stored.Salt)),
		encode(v.stored.StoredKey), encode(v.stored.ServerKey))
}

// ParseVerifier reads a verifier. The error does not repeat it.
func ParseVerifier(text string) (Verifier, error) {
	malformed := errors.New("is not a SCRAM-SHA-256 verifier, as `pgpact user NAME` makes them")
	rest, ok := strings.CutPrefix(text, verifierPrefix)
	if !ok {
		if strings.HasPrefix(text, "md5") {
			return Verifier{}, errors.New("is an md5 verifier, which is not supported: set the password again with password_encryption = scram-sha-256")
		}
		return Verifier{}, malformed
	}
	factors, keys, _ := strings.Cut(rest, "$")
	iterations, salt, _ := strings.Cut(factors, ":")
	storedKey, serverKey, _ := strings.Cut(keys, ":")
	var v Verifier
	var err error
	if v.stored.Iters, err = strconv.Atoi(iterations); err != nil {
		return Verifier{}, malformed
	}
	if v.stored.Iters < 1 || v.stored.Iters > maxIterations {
		return Verifier{}, fmt.Errorf("has %d iterations: 1 to %d are accepted", v.stored.Iters, maxIterations)
	}
	decoded, err := base64.StdEncoding.DecodeString(salt)
	if err != nil || len(decoded) == 0 {
		return Verifier{}, malformed
	}
	v.stored.Salt = string(decoded)
	for _, key := range []struct {
		text string
		into *[]byte
	}{{storedKey, &v.stored.StoredKey}, {serverKey, &v.stored.ServerKey}} {
		if *key.into, err = base64.StdEncoding.DecodeString(key.text); err != nil || len(*key.into) != sha256.Size {
			return Verifier{}, malformed
		}
	}
	return v, nil
}

// mockVerifier is what a user who does not exist, or may not log in with a
// password, is asked with: it looks as real as any, is the same each time and at
// every gateway that has the secret, and no password fits it. (Postgres:
// mock_scram_secret.)
func mockVerifier(secret []byte, user string, iterations int) Verifier {
	derive := func(what string) []byte {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(what + "\x00" + user))
		return mac.Sum(nil)
	}
	return Verifier{scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(derive("salt")[:saltLength]), Iters: iterations},
		StoredKey:  derive("stored key"), ServerKey: derive("server key"),
	}}
}
