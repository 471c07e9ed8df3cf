package derive

import (
	"slices"
	"strings"
)

// phrase is a run of words by which a message shows what its writer thinks of
// the answer before it. Words are plain (see there).
type phrase struct {
	kind    string
	clarity float64
	// at says that the message begins with it.
	atStart bool
	words   string // between spaces
}

// phrasesOf makes phrases out of a list of them, separated by "|". One that has
// to stand at the start begins with "^".
func phrasesOf(kind string, clarity float64, list string) []phrase {
	var out []phrase
	for p := range strings.SplitSeq(list, "|") {
		words, atStart := strings.CutPrefix(strings.TrimSpace(p), "^")
		out = append(out, phrase{kind, clarity, atStart, " " + strings.Join(strings.Fields(words), " ") + " "})
	}
	return out
}

// allPhrases in English, German, French, Spanish, Portuguese, Italian and Dutch.
// Of one kind the first that is found counts: the clear ones come first.
func allPhrases() []phrase {
	var out []phrase
	for _, p := range [][]phrase{
		phrasesOf(Rejected, 1, `thats not what i asked|that is not what i asked|not what i asked for|isnt what i asked|not what i meant|not what i wanted|
			not what i was asking|you didnt answer|you did not answer|you havent answered|that doesnt answer|that does not answer|doesnt answer my question|
			not an answer to my question|not answering my question|you misunderstood|you didnt understand|you dont understand my question|
			read my question again|reread my question|you are not listening|youre not listening|i didnt ask|i did not ask|wasnt my question|thats not my question|
			danach habe ich nicht gefragt|das habe ich nicht gefragt|das war nicht meine frage|beantwortet meine frage nicht|nicht was ich gefragt habe|du hast mich falsch verstanden|
			ce nest pas ce que jai demande|pas ce que jai demande|ne repond pas a ma question|tu nas pas compris|vous navez pas compris|
			no es lo que pregunte|eso no es lo que pedi|no respondes a mi pregunta|no responde a mi pregunta|no me has entendido|
			nao foi isso que eu perguntei|nao foi o que perguntei|nao respondeu a minha pergunta|non e quello che ho chiesto|non hai risposto|
			dat is niet wat ik vroeg|dat vroeg ik niet|je hebt mijn vraag niet beantwoord`),
		phrasesOf(Rejected, 0.8, `that doesnt help|that didnt help|that does not help|not helpful|unhelpful|doesnt work|does not work|didnt work|did not work|still not working|
			that is useless|thats useless|this is useless|^useless|makes no sense|that doesnt make sense|try again|das hilft mir nicht|das hilft nicht|funktioniert nicht|
			ca ne marche pas|ca ne maide pas|no funciona|no me sirve|nao funciona|nao ajuda|non funziona|werkt niet|daar heb ik niets aan`),
		phrasesOf(Corrected, 1, `thats wrong|that is wrong|this is wrong|thats incorrect|that is incorrect|this is incorrect|thats not right|that is not right|thats not correct|that is not correct|
			thats not true|that is not true|thats false|youre wrong|you are wrong|you made a mistake|you got it wrong|your answer is wrong|your answer is incorrect|^wrong|^incorrect|
			das ist falsch|das stimmt nicht|das ist nicht richtig|^falsch|cest faux|ce nest pas vrai|ce nest pas correct|eso es incorrecto|eso no es correcto|eso esta mal|^incorrecto|
			isso esta errado|isto esta errado|^errado|e sbagliato|non e corretto|^sbagliato|dat klopt niet|dat is fout|dat is niet juist`),
		phrasesOf(Corrected, 0.8, `i meant|i mean the|^no it is|^no its|^no it was|^no they|^no he|^no she|^no that|^no the|^actually it|^actually its|^actually the|^actually that|it should be|should have been|
			ich meinte|^nein es|^nein das|je voulais dire|^non cest|me referia a|^no es|quise decir|eu quis dizer|^nao e|intendevo|^no e|ik bedoelde|^nee het`),
		phrasesOf(AskedForHuman, 1, `speak to a human|talk to a human|speak with a human|talk with a human|chat with a human|speak to a person|talk to a person|speak to a real person|talk to a real person|
			speak with a person|real human|human agent|live agent|human please|speak to an agent|talk to an agent|speak to someone|talk to someone|speak to a representative|talk to a representative|
			customer service representative|^agent|^human|^operator|^representative|mit einem menschen|mit einem mitarbeiter|mitarbeiter sprechen|echten menschen|
			parler a un humain|parler a quelquun|parler a un conseiller|hablar con una persona|hablar con un humano|hablar con un agente|falar com um humano|falar com uma pessoa|falar com um atendente|
			parlare con una persona|parlare con un operatore|met een mens|met een medewerker`),
		phrasesOf(Clarification, 1, `what do you mean|what does that mean|i dont understand|i do not understand|i dont get it|could you clarify|can you clarify|please clarify|
			can you explain that|could you explain that|explain that again|what are you talking about|im confused|i am confused|was meinst du|was bedeutet das|ich verstehe nicht|verstehe ich nicht|
			que veux tu dire|quest ce que ca veut dire|je ne comprends pas|que quieres decir|no entiendo|nao entendi|nao entendo|o que quer dizer|cosa intendi|non capisco|wat bedoel je|ik begrijp het niet`),
		phrasesOf(Approved, 1, `^thank you|^thanks|^thx|^ty|thank you so much|thanks a lot|many thanks|^perfect|^great|^awesome|^excellent|^brilliant|^wonderful|that helped|that helps|very helpful|
			that works|it works now|works now|that worked|exactly what i|^got it|^nice|^cool|good answer|great answer|^danke|^vielen dank|^perfekt|^super|das hilft|^merci|^parfait|^genial|^gracias|^perfecto|^obrigado|^obrigada|^perfeito|
			^grazie|^perfetto|^bedankt|^dank je|^dankjewel|^top`),
		phrasesOf(Approved, 0.7, `thank you|thanks|thx|danke|merci|gracias|obrigado|grazie|bedankt`),
	} {
		out = append(out, p...)
	}
	return out
}

// saidBytes is how much of a message is looked at: what people think of an
// answer they say at once.
const saidBytes = 400

// phraseBook finds phrases by their first word.
type phraseBook struct {
	all     []phrase
	byFirst map[string][]int // positions in all
}

func newPhraseBook(all []phrase) *phraseBook {
	b := &phraseBook{all, map[string][]int{}}
	for i, p := range all {
		first := firstWord(p.words)
		b.byFirst[first] = append(b.byFirst[first], i)
	}
	return b
}

// firstWord of a plain text, which begins with a space.
func firstWord(plain string) string {
	word, _, _ := strings.Cut(plain[1:], " ")
	return word
}

// find are the phrases in a plain text, the first of each kind.
func (b *phraseBook) find(plain string) []phrase {
	var at []int
	for i := range len(plain) {
		if plain[i] != ' ' {
			continue
		}
		for _, n := range b.byFirst[firstWord(plain[i:])] {
			if p := b.all[n]; (i == 0 || !p.atStart) && strings.HasPrefix(plain[i:], p.words) {
				at = append(at, n)
			}
		}
	}
	slices.Sort(at)
	var out []phrase
	for _, n := range at {
		if p := b.all[n]; len(out) == 0 || out[len(out)-1].kind != p.kind {
			out = append(out, p)
		}
	}
	return out
}

// refusals are how answers say that they are none.
func refusals() []phrase {
	return phrasesOf("refusal", 1, `i cannot|i cant|im unable|i am unable|im not able|i am not able|im sorry|i am sorry|i apologize|i dont have|i do not have|as an ai|no information|not aware of|
		couldnt find|could not find|im not sure|there is no record|no widely|not publicly|ich kann nicht|tut mir leid|je ne peux pas|desole|lo siento|no puedo`)
}
