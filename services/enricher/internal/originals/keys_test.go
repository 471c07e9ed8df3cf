package originals

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

var (
	oldSecret = strings.Repeat("ab", 32)                       // hex
	newSecret = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=" // base64
	place     = Place{"p", "s", "<EMAIL_0001>"}
)

const mail = "jo@example.com"

func keys(t *testing.T, newest string, older ...string) Keys {
	t.Helper()
	k, err := NewKeys(newest, older)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestWhatIsSealedOpensInItsPlaceAlone(t *testing.T) {
	k := keys(t, newSecret)
	id, sealed, err := k.Seal(place, mail)
	if err != nil || bytes.Contains(sealed, []byte(mail)) {
		t.Fatalf("sealed %q, %v", sealed, err)
	}
	if got, err := k.Open(place, id, sealed); got != mail || err != nil {
		t.Errorf("opened %q, %v", got, err)
	}
	for name, other := range map[string]Place{
		"project": {"q", "s", place.Placeholder}, "session": {"p", "t", place.Placeholder}, "placeholder": {"p", "s", "<EMAIL_0002>"},
		"boundary": {"ps", "", place.Placeholder},
	} {
		if got, err := k.Open(other, id, sealed); !errors.Is(err, errBroken) || got != "" {
			t.Errorf("another %s: opened %q, %v", name, got, err)
		}
	}
	for i := range sealed {
		broken := bytes.Clone(sealed)
		broken[i] ^= 1
		if got, err := k.Open(place, id, broken); !errors.Is(err, errBroken) || got != "" {
			t.Errorf("byte %d changed: opened %q, %v", i, got, err)
		}
	}
	if _, err := k.Open(place, id, sealed[:5]); !errors.Is(err, errBroken) {
		t.Errorf("cut off: %v", err)
	}
}

// TestTheSameIsTheSameRow pins that a replay writes what is there, and that
// nothing else comes to share its nonce.
func TestTheSameIsTheSameRow(t *testing.T) {
	seal := func(k Keys, at Place, value string) []byte {
		_, sealed, err := k.Seal(at, value)
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	first := seal(keys(t, newSecret), place, mail)
	if again := seal(keys(t, newSecret, oldSecret), place, mail); !bytes.Equal(again, first) {
		t.Error("the same original became other bytes")
	}
	for name, other := range map[string][]byte{
		"key": seal(keys(t, oldSecret), place, mail), "value": seal(keys(t, newSecret), place, mail+"."),
		"session": seal(keys(t, newSecret), Place{"p", "t", place.Placeholder}, mail),
	} {
		if bytes.Equal(other[:12], first[:12]) {
			t.Errorf("another %s has the same nonce", name)
		}
	}
}

func TestOldKeysReadAndNewOnesWrite(t *testing.T) {
	oldID, sealed, err := keys(t, oldSecret).Seal(place, mail)
	if err != nil {
		t.Fatal(err)
	}
	rotated := keys(t, newSecret, oldSecret)
	if got, err := rotated.Open(place, oldID, sealed); got != mail || err != nil {
		t.Errorf("opened %q, %v", got, err)
	}
	newID, _, err := rotated.Seal(place, mail)
	if err != nil || newID == oldID {
		t.Errorf("sealed with key %s, %v; want not %s", newID, err, oldID)
	}
	if got, err := keys(t, newSecret).Open(place, oldID, sealed); !errors.Is(err, errUnknownKey) || got != "" {
		t.Errorf("without the key: opened %q, %v", got, err)
	}
	if got, err := keys(t, newSecret).Open(place, newID, sealed); !errors.Is(err, errBroken) || got != "" {
		t.Errorf("with another key: opened %q, %v", got, err)
	}
	if _, _, err := keys(t, "", oldSecret).Seal(place, mail); !errors.Is(err, ErrNoKey) {
		t.Errorf("a key for reading encrypted: %v", err)
	}
	if _, _, err := (Keys{}).Seal(place, mail); !errors.Is(err, ErrNoKey) {
		t.Errorf("no key encrypted: %v", err)
	}
}

func TestKeysThatAreNoneAreNotQuoted(t *testing.T) {
	const short = "c2hvcnQgc2VjcmV0"
	for name, bad := range map[string][2]string{"originals_key": {short, oldSecret}, "originals_old_keys[0]": {newSecret, short}} {
		_, err := NewKeys(bad[0], bad[1:])
		if err == nil || !strings.Contains(err.Error(), name+": want 32 random bytes") || strings.Contains(err.Error(), short) {
			t.Errorf("got %v, want it to name %s", err, name)
		}
	}
}
