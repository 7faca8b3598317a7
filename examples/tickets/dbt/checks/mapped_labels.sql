-- Each resolution's team, once more and by other means than the model's: what training sets are checked by.
select distinct versions.area, versions.kind, received_at, team as label
from versions
inner join read_csv($seeds || '/team_by_resolution.csv') as seed
    on (lower(trim(versions.area)), lower(trim(versions.kind))) = (seed.area, seed.kind)
