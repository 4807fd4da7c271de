-- A business date is kept in slices of 262,144 positions of the journal. A slice gets its first rows before it has indexes, which are then built by
-- sorting: that takes a fraction of what it takes to find the place of each row in each index. And the indexes of a large day, of which
-- only the last slice grows, stay in memory. A date that was begun before this step stays one table and grows as before.
DROP FUNCTION open_business_date(date);

-- Makes the tables of a slice where they are missing, for its rows to be copied into, and says whether it did: `attach_slice` must follow
-- then, in the same transaction. Made apart and then attached, because CREATE TABLE ... PARTITION OF would wait for every reader
-- of the parent, and every reader after it.
CREATE FUNCTION open_slice(opened date, slice bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    day text;
    made boolean := false;
BEGIN
    FOREACH parent IN ARRAY ARRAY['transaction', 'posting'] LOOP
        day := parent || to_char(opened, '_YYYY_MM_DD');
        IF to_regclass(quote_ident(day)) IS NULL THEN
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE (position)', day, parent);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, day, opened, opened + 1);
        END IF;
        CONTINUE WHEN (SELECT relkind <> 'p' FROM pg_class WHERE oid = to_regclass(quote_ident(day)));
        CONTINUE WHEN to_regclass(quote_ident(day || '_' || slice)) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', day || '_' || slice, parent);
        made := true;
    END LOOP;
    RETURN made;
END
$$;

-- Makes the slice part of its day; this builds its indexes.
CREATE FUNCTION attach_slice(opened date, slice bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    day text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['transaction', 'posting'] LOOP
        day := parent || to_char(opened, '_YYYY_MM_DD');
        EXECUTE format(
            'ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', day, day || '_' || slice, slice * 262144, (slice + 1) * 262144
        );
    END LOOP;
END
$$;
